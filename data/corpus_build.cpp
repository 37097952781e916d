#include "data/corpus_build.h"

#include <xxhash.h>

#include <algorithm>
#include <array>
#include <memory>
#include <optional>
#include <vector>

#include "data/near_duplicates.h"
#include "data/partial_folder.h"
#include "data/shard_writer.h"
#include "data/tokenizer.h"
#include "kernels/base/check.h"
#include "kernels/base/file.h"
#include "kernels/base/json.h"
#include "kernels/base/random.h"

namespace shoestring {
namespace {

namespace fs = std::filesystem;
using Verdict = DuplicateFinder::Verdict;

constexpr std::size_t kBatchBytes = std::size_t{4} << 20;

// Reads documents by the batch, so that the work on them can be shared out.
class BatchReader {
 public:
  explicit BatchReader(const CorpusOptions& options) : reader_(options) {}
  bool next(std::vector<Document>& batch) {
    batch.clear();
    std::size_t bytes = 0;
    Document document;
    while (bytes < kBatchBytes && reader_.next(document)) {
      bytes += document.text.size();
      batch.push_back(std::move(document));
    }
    return !batch.empty();
  }
  const CorpusCounts& counts() const { return reader_.counts(); }

 private:
  CorpusReader reader_;
};

/// All documents of a pass, their texts and their order, in one number.
class PassDigest {
 public:
  /// Of a batch, hashed by many.
  void add(const std::vector<Document>& batch, Workers& workers) {
    hashes_.resize(batch.size());
    workers.each(static_cast<std::int64_t>(batch.size()), [&](std::int64_t i) {
      const std::string& text = batch[static_cast<std::size_t>(i)].text;
      hashes_[static_cast<std::size_t>(i)] = XXH3_64bits(text.data(), text.size());
    });
    for (const std::uint64_t hash : hashes_) {
      const std::array<std::uint64_t, 2> both = {value_, hash};
      value_ = XXH3_64bits(both.data(), sizeof both);
    }
  }
  std::uint64_t value() const { return value_; }

 private:
  std::vector<std::uint64_t> hashes_;
  std::uint64_t value_ = 0;
};

// A number in [0, 1) that belongs to a text, whatever its name and place.
double draw(std::string_view text, std::uint64_t seed, std::uint32_t use) {
  return Random(seed, Purpose::hold_out, use).uniform(XXH3_64bits(text.data(), text.size()));
}
constexpr std::uint32_t kHoldOut = 0;
constexpr std::uint32_t kTokenizerSample = 1;

bool held_out(const CorpusBuildOptions& options, std::string_view text) {
  return draw(text, options.seed, kHoldOut) < options.hold_out;
}

/// What the first pass finds.
struct FirstPass {
  std::vector<Verdict> verdicts;
  std::uint64_t digest = 0;
};

FirstPass find_duplicates(const CorpusBuildOptions& options, const fs::path& folder, Workers& workers,
                          CorpusBuildResult& result) {
  DuplicateFinder finder(folder);
  BatchReader reader(options.corpus);
  std::vector<Document> batch;
  std::vector<Fingerprint> prints;
  PassDigest digest;
  while (reader.next(batch)) {
    digest.add(batch, workers);
    prints.resize(batch.size());
    workers.each(static_cast<std::int64_t>(batch.size()), [&](std::int64_t i) {
      prints[static_cast<std::size_t>(i)] = fingerprint(batch[static_cast<std::size_t>(i)].text);
    });
    for (const Fingerprint& print : prints) finder.add(print);
  }
  result.read = reader.counts();
  std::vector<Verdict> verdicts = finder.finish(options.near_threshold);
  for (const Verdict verdict : verdicts) {
    result.exact_duplicates += verdict == Verdict::exact_duplicate ? 1 : 0;
    result.near_duplicates += verdict == Verdict::near_duplicate ? 1 : 0;
  }
  return {std::move(verdicts), digest.value()};
}

std::unique_ptr<Tokenizer> choose_tokenizer(const CorpusBuildOptions& options, const std::vector<Verdict>& verdicts,
                                            std::int64_t corpus_bytes) {
  if (options.tokenizer == TokenizerChoice::bytes) return byte_tokenizer();
  if (options.tokenizer == TokenizerChoice::file) return load_tokenizer(options.tokenizer_file);
  // A little more than needed is drawn from all over the corpus; training stops at its limit.
  const double share = 1.2 * static_cast<double>(options.tokenizer_sample_bytes) /
                       static_cast<double>(std::max<std::int64_t>(1, corpus_bytes));
  CorpusReader reader(options.corpus);
  std::size_t index = 0;
  const auto next_text = [&](std::string& text) {
    Document document;
    while (reader.next(document)) {
      const bool kept = index < verdicts.size() && verdicts[index] == Verdict::keep;
      ++index;
      if (kept && !held_out(options, document.text) && draw(document.text, options.seed, kTokenizerSample) < share) {
        text = std::move(document.text);
        return true;
      }
    }
    return false;
  };
  return train_sentencepiece(options.vocabulary, options.tokenizer_sample_bytes, next_text);
}

// The shards of one split, begun when their first document comes.
class SplitWriter {
 public:
  SplitWriter(fs::path folder, std::string name, const CorpusBuildOptions& options, const Tokenizer& tokenizer)
      : folder_(std::move(folder)), name_(std::move(name)), options_(options), tokenizer_(tokenizer) {
    make_directories(folder_);
  }

  void append(const std::vector<std::uint32_t>& ids, std::size_t text_bytes) {
    if (!writer_) {
      writer_ = std::make_unique<ShardWriter>(
          (folder_ / fmt::format("{}-{:05}.h5", name_, shards_++)).string(),
          ShardWriterOptions{
              .vocabulary_size = tokenizer_.vocabulary_size(),
              .end_of_document = static_cast<std::uint32_t>(tokenizer_.special().end_of_document),
              .tokenizer_hash = tokenizer_.hash(),
              .source = options_.source,
          });
    }
    writer_->append(ids, text_bytes);
    ++documents;
    bytes += static_cast<std::int64_t>(text_bytes);
    if (static_cast<std::int64_t>(writer_->tokens()) >= options_.shard_tokens) finish();
  }
  void finish() {
    if (!writer_) return;
    tokens += static_cast<std::int64_t>(writer_->finish().tokens);
    writer_.reset();
  }

  std::int64_t documents = 0, bytes = 0, tokens = 0;

 private:
  fs::path folder_;
  std::string name_;
  const CorpusBuildOptions& options_;
  const Tokenizer& tokenizer_;
  std::unique_ptr<ShardWriter> writer_;
  int shards_ = 0;
};

// Verdicts belong to documents by their place, so every pass must find the same ones.
void check_count(std::size_t now, std::size_t before) {
  if (now == before) return;
  fail(ExitCode::bad_data,
       "the input changed while it was read: {} documents in the first pass, {}{} in the last; build again when "
       "nothing writes to it",
       before, now > before ? "at least " : "", now);
}

void write_shards(const CorpusBuildOptions& options, const fs::path& folder, const FirstPass& found,
                  const Tokenizer& tokenizer, Workers& workers, CorpusBuildResult& result) {
  const std::vector<Verdict>& verdicts = found.verdicts;
  SplitWriter train(folder / "train", "train", options, tokenizer);
  SplitWriter validation(folder / "validation", "validation", options, tokenizer);
  FileWriter names(folder / "held_out.txt");
  BatchReader reader(options.corpus);
  std::vector<Document> batch;
  std::vector<std::vector<std::uint32_t>> ids;
  std::size_t first = 0;
  PassDigest digest;
  while (reader.next(batch)) {
    digest.add(batch, workers);
    ids.resize(batch.size());
    if (first + batch.size() > verdicts.size()) check_count(first + batch.size(), verdicts.size());
    workers.each(static_cast<std::int64_t>(batch.size()), [&](std::int64_t i) {
      const auto at = static_cast<std::size_t>(i);
      ids[at].clear();
      if (verdicts[first + at] == Verdict::keep) tokenizer.encode(batch[at].text, ids[at]);
    });
    for (std::size_t i = 0; i < batch.size(); ++i) {
      if (verdicts[first + i] != Verdict::keep) continue;
      const bool out = held_out(options, batch[i].text);
      (out ? validation : train).append(ids[i], batch[i].text.size());
      if (out) names.write(batch[i].name + "\n");
    }
    first += batch.size();
  }
  check_count(first, verdicts.size());
  if (digest.value() != found.digest) {
    fail(ExitCode::bad_data,
         "the input changed while it was read: {} documents in both passes, but not the same; build again when nothing "
         "writes to it",
         first);
  }
  train.finish();
  validation.finish();
  names.finish();
  result.train_documents = train.documents;
  result.train_bytes = train.bytes;
  result.train_tokens = train.tokens;
  result.validation_documents = validation.documents;
  result.validation_bytes = validation.bytes;
  result.validation_tokens = validation.tokens;
}

// The second pass would read what is being written.
void refuse_output_in_input(const CorpusBuildOptions& options) {
  const fs::path out = fs::weakly_canonical(options.out);
  for (const fs::path& input : options.corpus.inputs) {
    std::error_code missing;  // CorpusReader names it
    const fs::path folder = fs::canonical(input, missing);
    if (missing || !fs::is_directory(folder)) continue;
    if (std::mismatch(folder.begin(), folder.end(), out.begin(), out.end()).first != folder.end()) continue;
    fail(ExitCode::usage, "{}: lies inside the input {}, shards would be read as text; build into a folder beside it",
         options.out.string(), input.string());
  }
}

std::string summary(const CorpusBuildResult& result) {
  const Json json = Json::object({
      {"schema", "shoestring.corpus/1"},
      {"files", result.read.files},
      {"documents", result.read.documents},
      {"bytes", result.read.bytes},
      {"binary_files", result.read.binary_files},
      {"exact_duplicates", result.exact_duplicates},
      {"near_duplicates", result.near_duplicates},
      {"train",
       Json::object(
           {{"documents", result.train_documents}, {"bytes", result.train_bytes}, {"tokens", result.train_tokens}})},
      {"validation", Json::object({{"documents", result.validation_documents},
                                   {"bytes", result.validation_bytes},
                                   {"tokens", result.validation_tokens}})},
      {"vocabulary", result.vocabulary},
      {"tokenizer_hash", result.tokenizer_hash},
  });
  return json.dump(1) + "\n";
}

}  // namespace

CorpusBuildResult build_corpus(const CorpusBuildOptions& options, Workers& workers,
                               const std::function<void(const std::string&)>& say) {
  refuse_output_in_input(options);
  PartialFolder out(options.out);
  const fs::path& folder = out.path();
  CorpusBuildResult result;
  say("reading the text and looking for duplicates");
  const FirstPass found = find_duplicates(options, folder, workers, result);
  if (result.read.documents == 0) {
    fail(ExitCode::bad_data, "the input holds no text: {} files were read, {} of them binary{}", result.read.files,
         result.read.binary_files,
         options.corpus.extensions.empty() ? "" : "; others do not end in one of the extensions asked for");
  }
  say(fmt::format("{} documents, {} bytes; {} exact and {} near duplicates dropped", result.read.documents,
                  result.read.bytes, result.exact_duplicates, result.near_duplicates));
  if (options.tokenizer == TokenizerChoice::train)
    say(fmt::format("training a tokenizer of {} pieces", options.vocabulary));
  const std::unique_ptr<Tokenizer> tokenizer = choose_tokenizer(options, found.verdicts, result.read.bytes);
  result.vocabulary = tokenizer->vocabulary_size();
  result.tokenizer_hash = tokenizer->hash();
  say("writing shards");
  write_shards(options, folder, found, *tokenizer, workers, result);
  if (result.train_documents == 0) fail(ExitCode::bad_data, "all text was held out or dropped: nothing to train on");
  replace_file(folder / tokenizer->file_name(), tokenizer->file_content());
  replace_file(folder / "corpus.json", summary(result));
  out.commit();
  return result;
}

}  // namespace shoestring
