#include "data/corpus_passes.h"

#include <fmt/format.h>
#include <xxhash.h>

#include <algorithm>
#include <array>
#include <optional>

#include "data/chat_tokens.h"
#include "data/split_writer.h"
#include "data/token_spool.h"
#include "kernels/base/file.h"
#include "kernels/base/json.h"

namespace shoestring {
namespace {

namespace fs = std::filesystem;
using Verdict = DuplicateFinder::Verdict;

constexpr std::size_t kRecordsAtOnce = 4096;

fs::path names_path(const fs::path& folder, int rank, int ranks) {
  return folder / (ranks == 1 ? "held_out.txt" : fmt::format("held_out.{}.txt", rank));
}

// Reads documents by the batch, so that the work on them can be shared out.
class BatchReader {
 public:
  explicit BatchReader(const CorpusBuildOptions& options, std::int64_t lines_before = 0)
      : reader_(part_of(options.corpus, lines_before)), bytes_(options.batch_bytes) {}
  bool next(std::vector<Document>& batch) {
    batch.clear();
    std::int64_t bytes = 0;
    Document document;
    while (bytes < bytes_ && reader_.next(document)) {
      bytes += static_cast<std::int64_t>(document.text.size());
      batch.push_back(std::move(document));
    }
    return !batch.empty();
  }
  const CorpusCounts& counts() const { return reader_.counts(); }
  std::int64_t read_bytes() const { return reader_.read_bytes(); }
  const LinesAcross& lines_across() const { return reader_.lines_across(); }

 private:
  static CorpusOptions part_of(CorpusOptions corpus, std::int64_t lines_before) {
    corpus.part.lines_before = lines_before;
    return corpus;
  }
  CorpusReader reader_;
  std::int64_t bytes_;
};

using Content = std::array<std::uint64_t, 2>;

/// All documents of a pass, their texts and their order, in one number.
class PassDigest {
 public:
  void add(const Content& content) {
    const std::array<std::uint64_t, 3> both = {value_, content[0], content[1]};
    value_ = XXH3_64bits(both.data(), sizeof both);
  }
  std::uint64_t value() const { return value_; }

 private:
  std::uint64_t value_ = 0;
};

/// What the first pass gathers, a document at a time.
class Findings {
 public:
  Findings(const BuildPlace& place, std::size_t rules)
      : finder_(place.folder, place.ranks),
        hold_out_(place.options.hold_out, place.options.seed),
        left_out_(2 * rules) {}

  void add(const DocumentRecord& record) {
    digest_.add(record.fingerprint.content);
    hold_out_.add(record.held_out, record.fingerprint.bytes);
    if (record.left_out == 0) {
      finder_.add(record.fingerprint);
      return;
    }
    finder_.pass();
    ++left_out_.at(2 * (record.left_out - 1u));
    left_out_.at(2 * (record.left_out - 1u) + 1) += record.fingerprint.bytes;
  }

  std::uint64_t digest() const { return digest_.value(); }
  FirstPass finish(const BuildPlace& place, const Curation& curation, PassResult input, CorpusBuildResult& result);

 private:
  DuplicateFinder finder_;
  HoldOut hold_out_;
  std::vector<std::int64_t> left_out_;  // by rule: documents, bytes
  PassDigest digest_;
};

// All ranks' counts, and the verdicts on this rank's documents.
FirstPass Findings::finish(const BuildPlace& place, const Curation& curation, PassResult input,
                           CorpusBuildResult& result) {
  BuildRanks& ranks = place.ranks;
  std::vector<JournalRows> journals;
  std::vector<FingerprintRows> rows;
  ranks.wait_for_all();  // for the journals
  for (int rank = 0; rank < ranks.size(); ++rank) {
    journals.emplace_back(place.folder, rank);
    rows.push_back(journals.back().fingerprints());
  }
  std::vector<Verdict> verdicts = finder_.finish(rows, place.options.near_threshold);
  const auto count = [&](Verdict verdict) { return std::count(verdicts.begin(), verdicts.end(), verdict); };
  result.exact_duplicates = ranks.sum(count(Verdict::exact_duplicate));
  result.near_duplicates = ranks.sum(count(Verdict::near_duplicate));
  for (std::size_t rule = 0; rule < curation.rules().size(); ++rule) {
    result.left_out.push_back(
        {curation.rules()[rule], ranks.sum(left_out_[2 * rule]), ranks.sum(left_out_[2 * rule + 1])});
  }
  hold_out_.finish(verdicts, ranks);
  return {std::move(verdicts), std::move(input), std::move(hold_out_), {}};
}

// Records of the batch's documents: from the journal as far as it knows them, the rest found out now.
void look_at(const std::vector<Document>& batch, const HoldOut& hold_out, const Curation& curation,
             BuildJournal& journal, Workers& workers, std::vector<DocumentRecord>& records) {
  std::vector<DocumentRecord> known = journal.next_known(batch.size());
  records.assign(batch.size(), {});
  workers.each(static_cast<std::int64_t>(batch.size()), [&](std::int64_t i) {
    const auto at = static_cast<std::size_t>(i);
    const std::string& text = batch[at].text;
    if (at < known.size() && known[at].fingerprint.content == content_of(text)) {
      records[at] = known[at];
    } else {
      records[at] = {fingerprint(text), hold_out.draws(text), curation.broken_rule(text)};
    }
  });
  std::size_t same = 0;
  while (same < known.size() && known[same].fingerprint.content == records[same].fingerprint.content) ++same;
  journal.confirm(same, same == batch.size());
  journal.append(std::span(records).subspan(same));
}

// Lines before a part's first one in the file that an earlier part begins: what that part had of it, and before it.
std::int64_t lines_before(const LinesAcross& own, BuildRanks& ranks) {
  const std::vector<std::int64_t> all = ranks.gather(std::array<std::int64_t, 2>{own.lines, own.through ? 1 : 0});
  std::int64_t before = 0;
  for (int rank = 0; rank < ranks.rank(); ++rank) {
    const auto at = 2 * static_cast<std::size_t>(rank);
    before = all[at] + (all[at + 1] != 0 ? before : 0);
  }
  return before;
}

PassResult read_input(const BuildPlace& place, BuildJournal& journal, const Curation& curation, TokenizerSample* sample,
                      Pace& pace, Findings& findings) {
  BatchReader reader(place.options);
  const HoldOut hold_out(place.options.hold_out, place.options.seed);
  std::vector<Document> batch;
  std::vector<DocumentRecord> records;
  std::size_t documents = 0;
  while (reader.next(batch)) {
    look_at(batch, hold_out, curation, journal, place.workers, records);
    for (std::size_t i = 0; i < batch.size(); ++i) {
      findings.add(records[i]);
      const bool may_be_kept = sample != nullptr && records[i].left_out == 0;
      if (may_be_kept) sample->add(documents + i, records[i].held_out, batch[i].text);
    }
    documents += batch.size();
    pace.at(reader.read_bytes());
  }
  return {findings.digest(), reader.counts(), lines_before(reader.lines_across(), place.ranks)};
}

// What an earlier build read, from its journal.
PassResult take_over(BuildJournal& journal, Findings& findings) {
  const PassResult input = *journal.first_pass();
  std::vector<DocumentRecord> records;
  while (!(records = journal.next_known(kRecordsAtOnce)).empty()) {
    for (const DocumentRecord& record : records) findings.add(record);
    journal.confirm(records.size(), true);
  }
  return input;
}

// All ranks' counts in one, on every rank.
CorpusCounts counts_of_all(const CorpusCounts& own, const BuildPlace& place) {
  if (place.ranks.size() == 1) return own;
  CorpusCounts all;
  for (int rank = 0; rank < place.ranks.size(); ++rank) {
    const std::optional<PassResult> found =
        rank == place.ranks.rank() ? PassResult{0, own, 0} : BuildJournal::first_pass_of(place.folder, rank);
    check(found.has_value(), "rank {} has not told what it read", rank);
    all.add(found->counts);
  }
  return all;
}

/// A document's two sides as tokens; a side without text has none, nor has one that stands in a finished shard.
struct EncodedDocument {
  bool kept = false;
  std::size_t trained_bytes = 0;
  bool encodes_trained = false, encodes_held_out = false;
  std::vector<std::uint32_t> trained, held_out;
  std::vector<std::uint8_t> learned;  ///< of a conversation, which lies on one side whole
};

/// The second pass: both splits, by the verdicts of the first.
class ShardPass {
 public:
  ShardPass(const BuildPlace& place, const FirstPass& found, const Tokenizer& tokenizer, DocumentSink& train,
            DocumentSink& validation)
      : found_(found),
        tokenizer_(tokenizer),
        workers_(place.workers),
        chat_(place.options.corpus.fields.chat),
        last_reply_alone_(place.options.last_reply_alone),
        train_(train),
        validation_(validation),
        names_(names_path(place.folder, place.ranks.rank(), place.ranks.size())),
        reader_(place.options, found.input.lines_before) {}

  void run(Pace pace) {
    std::vector<Document> batch;
    while (reader_.next(batch)) {
      check_count(first_ + batch.size(), true);
      encode(batch);
      for (std::size_t i = 0; i < batch.size(); ++i) write(batch[i], encoded_[i]);
      first_ += batch.size();
      pace.at(reader_.read_bytes(), train_.tokens() + validation_.tokens());
    }
    check_count(first_, false);
    if (digest_.value() != found_.input.digest) {
      throw InputChanged(ExitCode::bad_data,
                         fmt::format("the input changed since it was read first: {} documents both times, but not the "
                                     "same; build again when nothing writes to it",
                                     first_));
    }
    train_.finish();
    validation_.finish();
    names_.finish();
  }

 private:
  // Verdicts belong to documents by their place, so every pass must find the same ones.
  void check_count(std::size_t now, bool more_may_come) const {
    const std::size_t before = found_.verdicts.size();
    if (now == before || (more_may_come && now < before)) return;
    throw InputChanged(ExitCode::bad_data,
                       fmt::format("the input changed since it was read first: {} documents in the first pass, {}{} in "
                                   "the last; build again when nothing writes to it",
                                   before, now > before ? "at least " : "", now));
  }

  void encode(const std::vector<Document>& batch) {
    encoded_.assign(batch.size(), {});
    contents_.resize(batch.size());
    const auto each = [&](const auto& work) {
      workers_.each(static_cast<std::int64_t>(batch.size()),
                    [&](std::int64_t i) { work(static_cast<std::size_t>(i)); });
    };
    const auto kept = [&](std::size_t i) { return found_.verdicts[first_ + i] == Verdict::keep; };
    each([&](std::size_t i) {
      contents_[i] = content_of(batch[i].text);
      if (!kept(i)) return;
      const std::size_t border = found_.hold_out.trained_bytes(first_ + i, batch[i].text);
      encoded_[i].trained_bytes = chat_ && border > 0 ? batch[i].text.size() : border;
    });
    std::int64_t trained = train_.documents();
    std::int64_t held_out = validation_.documents();
    for (std::size_t i = 0; i < batch.size(); ++i) {
      digest_.add(contents_[i]);
      if (!kept(i)) continue;
      EncodedDocument& document = encoded_[i];
      if (document.trained_bytes > 0) document.encodes_trained = !train_.stands(trained++);
      if (document.trained_bytes < batch[i].text.size()) document.encodes_held_out = !validation_.stands(held_out++);
    }
    each([&](std::size_t i) {
      EncodedDocument& document = encoded_[i];
      const std::string_view text = batch[i].text;
      if (chat_ && (document.encodes_trained || document.encodes_held_out))
        return encode_conversation(batch[i], document);
      if (document.encodes_trained) tokenizer_.encode(text.substr(0, document.trained_bytes), document.trained);
      if (document.encodes_held_out) tokenizer_.encode(text.substr(document.trained_bytes), document.held_out);
    });
    for (std::size_t i = 0; i < batch.size(); ++i) encoded_[i].kept = kept(i);
  }

  void encode_conversation(const Document& line, EncodedDocument& out) const {
    Conversation conversation = read_conversation(parse_json(line.text, line.name), line.name);
    if (last_reply_alone_) {
      for (std::size_t i = 0; i + 1 < conversation.messages.size(); ++i) conversation.messages[i].learned = false;
    }
    try {
      ChatTokens tokens = encode_chat(render_chat(*chat_, conversation, {.training = true}), tokenizer_);
      (out.encodes_trained ? out.trained : out.held_out) = std::move(tokens.ids);
      out.learned = std::move(tokens.learned);
    } catch (const Error& error) {
      fail(error.code(), "{}: {}", line.name, error.what());
    }
  }

  void write_conversation(const Document& line, const EncodedDocument& encoded) {
    const bool trained = encoded.trained_bytes > 0;
    DocumentSink& split = trained ? train_ : validation_;
    if (trained ? encoded.encodes_trained : encoded.encodes_held_out) {
      split.append_masked(trained ? encoded.trained : encoded.held_out, encoded.learned);
    } else {
      split.pass();
    }
    if (!trained) names_.write(line.name + "\n");
  }

  void write(const Document& document, const EncodedDocument& encoded) {
    if (!encoded.kept) return;
    if (chat_) return write_conversation(document, encoded);
    const std::size_t border = encoded.trained_bytes;
    if (border > 0) encoded.encodes_trained ? train_.append(encoded.trained, border) : train_.pass();
    if (border == document.text.size()) return;
    encoded.encodes_held_out ? validation_.append(encoded.held_out, document.text.size() - border) : validation_.pass();
    names_.write(document.name + (border > 0 ? fmt::format(" from byte {}\n", border) : "\n"));
  }

  const FirstPass& found_;
  const Tokenizer& tokenizer_;
  Workers& workers_;
  std::optional<ChatFormat> chat_;
  bool last_reply_alone_;
  DocumentSink& train_;
  DocumentSink& validation_;
  FileWriter names_;
  BatchReader reader_;
  PassDigest digest_;
  std::vector<Content> contents_;
  std::vector<EncodedDocument> encoded_;
  std::size_t first_ = 0;  // document of the next batch
};

// All ranks' counts, and what of their documents goes where.
void run_pass(const BuildPlace& place, const FirstPass& found, const Tokenizer& tokenizer, Pace pace,
              DocumentSink& train, DocumentSink& validation, CorpusBuildResult& result) {
  BuildRanks& ranks = place.ranks;
  const std::int64_t finished = ranks.sum(train.finished_documents() + validation.finished_documents());
  place.hooks.say(finished == 0 ? std::string("writing shards")
                                : fmt::format("writing shards; {} documents stand in finished ones", finished));
  ShardPass(place, found, tokenizer, train, validation).run(pace);
  result.train_documents = ranks.sum(train.documents());
  result.train_bytes = ranks.sum(train.bytes());
  result.train_tokens = ranks.sum(train.tokens());
  result.validation_documents = ranks.sum(validation.documents());
  result.validation_bytes = ranks.sum(validation.bytes());
  result.validation_tokens = ranks.sum(validation.tokens());
}

// The ranks' names one behind the other, as one process writes them.
void join_names(const fs::path& folder, BuildRanks& ranks) {
  ranks.wait_for_all();
  if (ranks.leads()) {
    FileWriter all(folder / "held_out.txt");
    std::string some(std::size_t{1} << 20, '\0');
    for (int rank = 0; rank < ranks.size(); ++rank) {
      const fs::path path = names_path(folder, rank, ranks.size());
      const FileHandle file = open_for_reading(path);
      for (std::int64_t at = 0, bytes = file_bytes(file, path); at < bytes;) {
        const std::int64_t count = std::min<std::int64_t>(bytes - at, static_cast<std::int64_t>(some.size()));
        read_at(file, path, at, some.data(), count);
        all.write(some.data(), static_cast<std::size_t>(count));
        at += count;
      }
    }
    all.finish();
  }
  ranks.wait_for_all();
}

}  // namespace

FirstPass first_pass(const BuildPlace& place, BuildJournal& journal, const Curation& curation, FirstPassWork work,
                     Pace& pace, CorpusBuildResult& result) {
  Findings findings(place, curation.rules().size());
  TokenizerSample sample(place.options.tokenizer_sample_bytes, place.options.seed);
  const PassResult input = work.reads
                               ? read_input(place, journal, curation, work.samples ? &sample : nullptr, pace, findings)
                               : take_over(journal, findings);
  const bool as_before = place.ranks.sum(journal.first_pass_done(input) ? 0 : 1) == 0;
  result.read = counts_of_all(input.counts, place);
  check_bad_lines(result.read, place.options.corpus.skip_bad);
  FirstPass found = findings.finish(place, curation, input, result);
  found.as_before = as_before;
  if (!work.reads || !work.samples) return found;
  found.sample = sample.take(
      [&](std::size_t document, bool drawn, std::size_t begin, std::string_view text) -> std::size_t {
        if (found.verdicts[document] != Verdict::keep) return 0;
        return found.hold_out.surely_trained(document, drawn, begin, text);
      },
      place.folder, place.ranks);
  return found;
}

void write_shards(const BuildPlace& place, const FirstPass& found, const Tokenizer& tokenizer, Pace pace,
                  CorpusBuildResult& result) {
  const auto split = [&](const char* name) {
    const bool masked = place.options.corpus.fields.chat.has_value();
    return SplitOptions{place.folder / name, name, place.options.source, place.options.shard_tokens, masked};
  };
  if (place.ranks.size() == 1) {
    SplitWriter train(split("train"), tokenizer);
    SplitWriter validation(split("validation"), tokenizer);
    run_pass(place, found, tokenizer, pace, train, validation, result);
    return;
  }
  TokenSpool train(place.folder, split("train"), tokenizer, place.ranks.rank());
  TokenSpool validation(place.folder, split("validation"), tokenizer, place.ranks.rank());
  run_pass(place, found, tokenizer, pace, train, validation, result);
  write_spooled_shards(place.folder, split("train"), tokenizer, place.ranks);
  write_spooled_shards(place.folder, split("validation"), tokenizer, place.ranks);
  join_names(place.folder, place.ranks);
}

void remove_working_files(const fs::path& folder, int rank) {
  for (const char* split : {"train", "validation"}) TokenSpool::remove(folder, split, rank);
  std::error_code error;
  fs::remove(names_path(folder, rank, 2), error);
  if (error) fail(ExitCode::io, "{}: cannot be removed: {}", folder.string(), system_reason(error.value()));
}

}  // namespace shoestring
