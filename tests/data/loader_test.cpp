#include "data/loader.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <thread>

#include "data/block_check.h"
#include "data/sample_ledger.h"
#include "tests/data/shard_fixture.h"

namespace shoestring {
namespace {

using namespace shoestring::testing;

constexpr std::uint32_t kVocabulary = 1000;

/// Two sources: "text" in two shards (a folder), "code" in one.
class LoaderTest : public ::testing::Test {
 protected:
  LoaderTest() {
    std::filesystem::create_directory(folder_ / "text");
    write_shard(folder_ / "text/0.h5", make_documents(500, 120, kVocabulary - 10, 1), kVocabulary);
    write_shard(folder_ / "text/1.h5", make_documents(300, 120, kVocabulary - 10, 2), kVocabulary);
    write_shard(folder_ / "code.h5", make_documents(400, 60, kVocabulary - 10, 3), kVocabulary);
  }
  LoaderOptions options(std::int64_t sequence = 256) const {
    LoaderOptions options;
    options.sources = {{"text", {folder_ / "text"}, 0.7}, {"code", {folder_ / "code.h5"}, 0.3}};
    options.sequence = sequence;
    options.seed = 5;
    return options;
  }
  LoaderOptions with_gaps() const {
    LoaderOptions all = options();
    all.fill_in_middle = FillInMiddle{0.3, 995, 996, 997};
    return all;
  }
  ShardFolder folder_;
};

std::uint64_t hash_of(const Batch& batch, std::int64_t row) {
  const auto at = static_cast<std::size_t>(row * batch.sequence);
  const auto length = static_cast<std::size_t>(batch.sequence);
  std::vector<std::int32_t> rows(3 * length);
  for (std::size_t t = 0; t < length; ++t) {
    rows[t] = batch.inputs[at + t];
    rows[length + t] = batch.targets[at + t];
    rows[2 * length + t] = batch.segment_start[at + t] - static_cast<std::int32_t>(at);
  }
  return checksum(rows.data(), rows.size() * 4);
}

/// Hash of each of the first `samples` samples, fetched `microbatch` at a time by `world` ranks in turn.
std::vector<std::uint64_t> stream(const Loader& loader, std::int64_t samples, std::int64_t microbatch, int world) {
  std::vector<std::uint64_t> hashes(static_cast<std::size_t>(samples));
  for (int rank = world - 1; rank >= 0; --rank) {
    for (std::int64_t first = rank * microbatch; first < samples; first += microbatch * world) {
      const Batch batch = loader.fetch({first, std::min(microbatch, samples - first)});
      for (std::int64_t row = 0; row < batch.samples; ++row) {
        hashes[static_cast<std::size_t>(first + row)] = hash_of(batch, row);
      }
    }
  }
  return hashes;
}

TEST_F(LoaderTest, StreamDoesNotDependOnHowItIsAskedFor) {
  for (const LoaderOptions& base : {options(), with_gaps()}) {
    const Loader loader(base);
    const auto expected = stream(loader, 960, 8, 1);
    EXPECT_GT(std::set<std::uint64_t>(expected.begin(), expected.end()).size(), 850u);  // full-length parts come again
    for (const int world : {2, 3, 4, 6, 8, 16, 64}) EXPECT_EQ(stream(loader, 960, 5, world), expected) << world;
    LoaderOptions other = base;
    other.io = ShardIo::pread;
    EXPECT_EQ(stream(Loader(other), 960, 7, 1), expected);
    other.verify = false;
    EXPECT_EQ(stream(Loader(other), 960, 1, 1), expected);
    other.seed = 6;
    EXPECT_NE(stream(Loader(other), 960, 1, 1), expected);
  }
}

TEST_F(LoaderTest, ThreadsFetchAtOnce) {
  const Loader loader(with_gaps());
  const auto expected = stream(loader, 400, 4, 1);
  const Loader fresh(with_gaps());
  std::vector<std::vector<std::uint64_t>> got(4);
  std::vector<std::thread> threads;
  for (auto& hashes : got) threads.emplace_back([&] { hashes = stream(fresh, 400, 3, 2); });
  for (std::thread& thread : threads) thread.join();
  for (const auto& hashes : got) EXPECT_EQ(hashes, expected);
}

// Every (source, token) once per epoch, across sources, epochs and the mixture, with the counts that are reported.
TEST_F(LoaderTest, EachEpochHoldsEveryTokenOnce) {
  for (const LoaderOptions& base : {options(), with_gaps()}) {
    const Loader loader(base);
    std::map<std::pair<int, std::int64_t>, SampleLedger> ledgers;
    std::map<std::pair<int, std::int64_t>, std::int64_t> samples;
    for (std::int64_t sample = 0; sample < 1500; ++sample) {
      const SampleOrigin origin = loader.origin(sample);
      const auto key = std::make_pair(origin.source, origin.epoch);
      ledgers.try_emplace(key, loader.counts(origin.source).tokens).first->second.add(origin.pieces);
      samples[key] += 1;
    }
    int complete = 0;
    for (const auto& [key, ledger] : ledgers) {
      EXPECT_EQ(ledger.repeated_tokens(), 0);
      const bool whole = samples[key] == loader.counts(key.first).samples;
      EXPECT_EQ(ledger.complete(), whole);
      complete += whole ? 1 : 0;
    }
    EXPECT_GE(complete, 3);
  }
}

TEST_F(LoaderTest, BatchCountsSumAndAgreeWithThePlan) {
  LoaderOptions one = with_gaps();
  one.sources.pop_back();
  const Loader loader(one);
  const PackingCounts& counts = loader.counts(0);
  Batch batch;
  PackingCounts seen;
  std::int64_t trained = 0;
  for (std::int64_t first = 0; first < loader.samples_per_epoch(); ++first) {
    loader.fetch({first, 1}, batch);
    EXPECT_EQ(batch.text_tokens + 3 * batch.fill_in_middle_documents + batch.padding_tokens, 257);
    EXPECT_EQ(batch.trained_tokens,
              std::count_if(batch.targets.begin(), batch.targets.end(), [](int t) { return t >= 0; }));
    seen.tokens += batch.text_tokens;
    seen.padding += batch.padding_tokens;
    EXPECT_EQ(batch.padding_inputs, std::max<std::int64_t>(0, batch.padding_tokens - 1));  // one place is none's input
    seen.pieces += batch.pieces;
    seen.fill_in_middle_documents += batch.fill_in_middle_documents;
    trained += batch.trained_tokens;
  }
  EXPECT_EQ(seen.tokens, counts.tokens);
  EXPECT_EQ(seen.padding, counts.padding);
  EXPECT_EQ(seen.pieces, counts.pieces);
  EXPECT_EQ(seen.fill_in_middle_documents, counts.fill_in_middle_documents);
  EXPECT_EQ(trained, counts.tokens + counts.sentinels - counts.pieces);  // all but the first token of every piece
  EXPECT_GT(counts.fill_in_middle_documents, 100);
  EXPECT_EQ(counts.dropped_tokens + counts.truncated_documents, 0);
  EXPECT_EQ(loader.text_bytes(0), static_cast<std::uint64_t>(3 * (counts.tokens - counts.documents)));
}

TEST_F(LoaderTest, MaskedRowsKeepDocumentsApart) {
  const Loader loader(options());
  const Batch batch = loader.fetch({20, 30});
  ASSERT_EQ(batch.inputs.size(), 30u * 256u);
  for (std::int64_t row = 0; row < 30; ++row) {
    for (std::int64_t t = 0; t < 256; ++t) {
      const auto at = static_cast<std::size_t>(row * 256 + t);
      const auto start = batch.segment_start[at];
      ASSERT_LE(row * 256, start);
      ASSERT_LE(start, static_cast<std::int32_t>(at));
      ASSERT_EQ(batch.segment_start[static_cast<std::size_t>(start)], start);
      if (t == 255) continue;
      const bool cut = batch.segment_start[at + 1] == static_cast<std::int32_t>(at) + 1;
      if (cut) {
        ASSERT_EQ(batch.targets[at], -1);
      } else if (batch.targets[at] >= 0) {
        ASSERT_EQ(batch.targets[at], batch.inputs[at + 1]);
        ASSERT_NE(batch.inputs[at], static_cast<std::int32_t>(kEnd));  // nothing follows the end of a document
      }
    }
  }
  // The end-of-document id itself is predicted.
  EXPECT_GT(std::count(batch.targets.begin(), batch.targets.end(), static_cast<std::int32_t>(kEnd)), 30);
}

TEST_F(LoaderTest, UnmaskedRowsAreOneText) {
  LoaderOptions plain = options();
  plain.document_mask = false;
  const Loader loader(plain);
  const Loader masked(options());
  const Batch batch = loader.fetch({20, 30});
  EXPECT_EQ(batch.inputs, masked.fetch({20, 30}).inputs);  // the mask does not move a token
  for (std::int64_t row = 0; row < 30; ++row) {
    for (std::int64_t t = 0; t < 256; ++t) {
      const auto at = static_cast<std::size_t>(row * 256 + t);
      ASSERT_EQ(batch.segment_start[at], row * 256);
      if (t < 255 && batch.targets[at] >= 0) {
        ASSERT_EQ(batch.targets[at], batch.inputs[at + 1]);
      }
    }
  }
  EXPECT_EQ(batch.trained_tokens, 30 * 256 - batch.padding_tokens);
}

// What the batch holds is what the shards hold: each piece is found again, and a rearranged document put back.
TEST_F(LoaderTest, TokensAreTheDocuments) {
  const Loader loader(with_gaps());
  std::map<int, std::vector<std::int32_t>> text;
  const auto load = [&](int source, const std::vector<std::string>& paths) {
    for (const std::string& path : paths) {
      const Shard shard = Shard::open(path);
      const std::size_t before = text[source].size();
      text[source].resize(before + shard.info().tokens);
      shard.read(0, shard.info().tokens, text[source].data() + before);
    }
  };
  load(0, {folder_ / "text/0.h5", folder_ / "text/1.h5"});
  load(1, {folder_ / "code.h5"});
  int rearranged = 0;
  std::set<std::int64_t> gap_lengths;
  for (std::int64_t sample = 0; sample < 600; ++sample) {
    const SampleOrigin origin = loader.origin(sample);
    const Batch batch = loader.fetch({sample, 1});
    std::vector<std::int32_t> row =
        batch.inputs;  // sequence + 1 tokens: the inputs and, where trained, the last target
    row.push_back(batch.targets.back());
    std::size_t at = 0;
    for (const Piece& piece : origin.pieces) {
      const auto* expected = text[origin.source].data() + piece.begin;
      const std::size_t length = piece.length + (piece.fill_in_middle ? 3 : 0);
      const auto begin = row.begin() + static_cast<std::ptrdiff_t>(at);
      std::vector<std::int32_t> tokens(begin, begin + static_cast<std::ptrdiff_t>(length));
      at += tokens.size();
      if (piece.fill_in_middle) {
        const auto hole = std::find(tokens.begin(), tokens.end(), 996);
        const auto end = std::find(tokens.begin(), tokens.end(), 997);
        ASSERT_EQ(tokens.front(), 995);
        ASSERT_TRUE(hole < end && end < tokens.end() && tokens.back() == static_cast<std::int32_t>(kEnd));
        std::vector<std::int32_t> document(tokens.begin() + 1, hole);
        document.insert(document.end(), end + 1, tokens.end() - 1);
        document.insert(document.end(), hole + 1, end);
        document.push_back(tokens.back());
        gap_lengths.insert(tokens.end() - 1 - (end + 1));
        tokens = document;
        ++rearranged;
      }
      ASSERT_EQ(tokens.size(), piece.length);
      ASSERT_TRUE(std::equal(tokens.begin(), tokens.end(), expected)) << sample;
    }
  }
  EXPECT_GT(rearranged, 200);
  EXPECT_GT(gap_lengths.size(), 30u);
}

TEST_F(LoaderTest, PlanNamesWhatChanged) {
  const Loader loader(with_gaps());
  EXPECT_LT(loader.plan().size(), 4096u);
  loader.check_plan(loader.plan());
  LoaderOptions moved = with_gaps();
  std::filesystem::create_directory(folder_ / "elsewhere");
  std::filesystem::copy(folder_ / "code.h5", folder_ / "elsewhere/renamed.h5");
  moved.sources[1] = {"other name", {folder_ / "elsewhere"}, 0.3};
  moved.io = ShardIo::pread;
  Loader(moved).check_plan(loader.plan());
  const auto complaint = [&](const LoaderOptions& changed) {
    const Error error = error_of([&] { Loader(changed).check_plan(loader.plan()); });
    EXPECT_EQ(error.code(), ExitCode::bad_data);
    return std::string(error.what());
  };
  LoaderOptions changed = with_gaps();
  changed.sequence = 512;
  const std::string text = complaint(changed);
  EXPECT_NE(text.find("was: sequence = 256"), std::string::npos) << text;
  EXPECT_NE(text.find("is:  sequence = 512"), std::string::npos) << text;
  EXPECT_EQ(text.find("seed"), std::string::npos) << text;
  changed = with_gaps();
  changed.sources[0].weight = 0.8;
  EXPECT_NE(complaint(changed).find("source.0"), std::string::npos);
  changed = with_gaps();
  changed.sources[0].paths = {folder_ / "text/0.h5"};
  EXPECT_NE(complaint(changed).find("source.0"), std::string::npos);
  changed = with_gaps();
  changed.fill_in_middle.reset();
  EXPECT_NE(complaint(changed).find("fill_in_middle"), std::string::npos);
}

TEST_F(LoaderTest, ManySourcesStillMakeAShortPlan) {
  LoaderOptions many;
  many.sequence = 64;
  for (int source = 0; source < 200; ++source) many.sources.push_back({"s", {folder_ / "code.h5"}, 1.0});
  EXPECT_LT(Loader(many).plan().size(), 4096u);
}

TEST_F(LoaderTest, CorruptBlockFailsTheFetchThatTouchesIt) {
  const ShardInfo info = Shard::open(folder_ / "code.h5").info();
  std::vector<char> bytes = testing::file_bytes(folder_ / "code.h5");
  char& byte = bytes[info.tokens_offset + 1000];
  byte = static_cast<char>(byte ^ 16);
  write_bytes(folder_ / "code.h5", bytes);
  const Loader loader(options());
  const Error error = error_of([&] {
    for (std::int64_t sample = 0; sample < 2000; ++sample) loader.fetch({sample, 1});
  });
  EXPECT_EQ(error.code(), ExitCode::bad_data);
  EXPECT_NE(std::string(error.what()).find("code.h5: block 0"), std::string::npos) << error.what();
}

TEST_F(LoaderTest, RefusesContradictions) {
  const auto code_of = [&](const LoaderOptions& bad) { return error_of([&] { Loader loader(bad); }).code(); };
  LoaderOptions bad = options();
  bad.sources.clear();
  EXPECT_EQ(code_of(bad), ExitCode::usage);
  bad = options(0);
  EXPECT_EQ(code_of(bad), ExitCode::usage);
  bad = options();
  bad.sources[0].weight = 0;
  EXPECT_EQ(code_of(bad), ExitCode::usage);
  bad = with_gaps();
  bad.fill_in_middle->hole_id = kVocabulary;
  EXPECT_EQ(code_of(bad), ExitCode::usage);
  bad = options();
  bad.sources[0].paths = {folder_ / "none"};
  EXPECT_EQ(code_of(bad), ExitCode::missing_input);
  write_shard(folder_ / "other.h5", {{5, 6}}, 2000);
  bad = options();
  bad.sources[1].paths = {folder_ / "other.h5"};
  EXPECT_EQ(code_of(bad), ExitCode::bad_data);
  bad.sources = {{"both", {folder_ / "code.h5", folder_ / "other.h5"}, 1.0}};
  EXPECT_EQ(code_of(bad), ExitCode::bad_data);
}

// Three conversations: ids 10.., of which the even ones are learned.
ShardFolder& masked_folder() {
  static ShardFolder folder;
  static const bool made = [] {
    ShardWriter writer(
        folder / "chat.h5",
        {.vocabulary_size = 100, .end_of_document = kEnd, .tokenizer_hash = "test", .source = "chats", .masked = true});
    writer.append_masked(std::vector<std::uint32_t>{10, 11, 12, kEnd, 14}, std::vector<std::uint8_t>{1, 0, 1, 1, 1});
    writer.append_masked(std::vector<std::uint32_t>{20, 21, kEnd}, std::vector<std::uint8_t>{0, 0, 1});
    writer.append_masked(std::vector<std::uint32_t>(40, 30), std::vector<std::uint8_t>(40, 0));
    writer.finish();
    return true;
  }();
  EXPECT_TRUE(made);
  return folder;
}

LoaderOptions masked_options(LongDocuments what = LongDocuments::drop) {
  LoaderOptions options;
  options.sources = {{"chats", {masked_folder() / "chat.h5"}, 1}};
  options.sequence = 15;
  options.long_documents = what;
  options.weights = TokenWeights::documents;
  return options;
}

TEST(MaskedLoader, TargetsAreWhatIsLearned) {
  const Loader loader(masked_options());
  EXPECT_EQ(loader.counts(0).dropped_documents, 1) << "longer than a sample";
  const Batch batch = loader.fetch({0, 1});
  EXPECT_EQ(batch.trained_tokens, 4);
  std::map<std::int32_t, std::int32_t> next;  // of the first document, by its inputs
  for (std::size_t t = 0; t < 15; ++t) {
    EXPECT_GE(batch.inputs[t], 0);
    if (batch.inputs[t] >= 10 && batch.inputs[t] < 20) next[batch.inputs[t]] = batch.targets[t];
  }
  EXPECT_EQ(next, (std::map<std::int32_t, std::int32_t>{{10, -1}, {11, 12}, {12, kEnd}, {14, -1}}))
      << "11 and the end behind 14 are only read; what the first document begins with has nothing before it";
  for (std::size_t t = 0; t < 15; ++t) {
    const bool second = batch.inputs[t] >= 20;
    EXPECT_TRUE(batch.targets[t] < 0 || batch.weights[t] == (second ? 1.0F : 1.0F / 3));
  }
}

// The same places, marks or no marks; the plan tells the two apart.
TEST(MaskedLoader, MarksAreLeftAsideWhereAllIsLearned) {
  LoaderOptions all = masked_options();
  all.learned = LearnedTokens::all;
  const Loader loader(all);
  EXPECT_FALSE(loader.masked());
  EXPECT_TRUE(Loader(masked_options()).masked());
  const Batch batch = loader.fetch({0, 1});
  EXPECT_EQ(batch.inputs, Loader(masked_options()).fetch({0, 1}).inputs);
  EXPECT_EQ(batch.trained_tokens, 7);  // of documents of six tokens, the end behind 14 among them, and of three
  EXPECT_EQ(batch.padding_inputs, 15 - 9);
  for (std::size_t t = 0; t < 15; ++t) {
    if (batch.inputs[t] == 10) {
      EXPECT_EQ(batch.targets[t], 11);
    }
    if (batch.inputs[t] == 20) {
      EXPECT_EQ(batch.targets[t], 21);
    }
  }
  EXPECT_THROW(loader.check_plan(Loader(masked_options()).plan()), Error);
  all.document_mask = false;
  EXPECT_THROW(Loader{all}, Error);
}

TEST(MaskedLoader, ACutThatTeachesNothingIsDropped) {
  EXPECT_EQ(Loader(masked_options(LongDocuments::cut)).counts(0).dropped_documents, 1);
  LoaderOptions one_text = masked_options();
  one_text.document_mask = false;
  EXPECT_THROW(Loader{one_text}, Error);
  LoaderOptions short_samples = masked_options();
  short_samples.sequence = 1;
  EXPECT_TRUE(std::string(error_of([&] { Loader{short_samples}; }).what()).starts_with("chats: no document makes"));
}

// Weights that change, and a source that gives no more than its epochs: the same whoever asks for which samples, and
// every sample of the epochs that are allowed is given once.
TEST_F(LoaderTest, MixesOverTimeAndKeepsEpochLimits) {
  LoaderOptions changing = options();
  changing.mix = {{40, {0.2, 0.8}}, {90, {1, 1}}};
  changing.sources[1].most_epochs = 1.5;
  const Loader loader(changing);
  const std::int64_t most = std::llround(1.5 * static_cast<double>(loader.samples_per_epoch(1)));
  std::map<std::pair<std::int64_t, std::int64_t>, int> seen;
  for (std::int64_t i = 0; i < 1000; ++i) {
    const SampleOrigin origin = loader.origin(i);
    if (origin.source == 1) ++seen[{origin.epoch, origin.position}];
  }
  EXPECT_EQ(std::ssize(seen), most);
  for (const auto& [place, times] : seen) EXPECT_EQ(times, 1);
  EXPECT_EQ(loader.given(1, 1000), most);
  EXPECT_EQ(loader.given(0, 1000), 1000 - most);
  EXPECT_NEAR(static_cast<double>(loader.given(1, 90) - loader.given(1, 40)), 40, 2);
  EXPECT_EQ(stream(loader, 150, 10, 3), stream(loader, 150, 6, 1));
  EXPECT_EQ(loader.samples(), MixtureSchedule::kNoLimit);
}

TEST_F(LoaderTest, EndsWhenAllSourcesHaveGivenTheirEpochs) {
  LoaderOptions limited = options();
  for (DataSource& source : limited.sources) source.most_epochs = 1;
  const Loader loader(limited);
  EXPECT_EQ(loader.samples(), loader.samples_per_epoch(0) + loader.samples_per_epoch(1));
  EXPECT_THROW(loader.fetch({loader.samples(), 1}), Error);
}

// A run goes on under another mixture as little as under another seed.
TEST_F(LoaderTest, APlanKnowsItsMixture) {
  const std::string plain = Loader(options()).plan();
  LoaderOptions changed = options();
  changed.mix = {{40, {0.5, 0.5}}};
  EXPECT_THROW(Loader(changed).check_plan(plain), Error);
  changed = options();
  changed.sources[0].most_epochs = 4;
  EXPECT_THROW(Loader(changed).check_plan(plain), Error);
}

}  // namespace
}  // namespace shoestring
