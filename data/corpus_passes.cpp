#include "data/corpus_passes.h"

#include <fmt/format.h>
#include <xxhash.h>

#include <array>
#include <optional>

#include "data/chat_tokens.h"
#include "data/split_writer.h"
#include "kernels/base/file.h"
#include "kernels/base/json.h"

namespace shoestring {
namespace {

namespace fs = std::filesystem;
using Verdict = DuplicateFinder::Verdict;

// Reads documents by the batch, so that the work on them can be shared out.
class BatchReader {
 public:
  explicit BatchReader(const CorpusBuildOptions& options) : reader_(options.corpus), bytes_(options.batch_bytes) {}
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

 private:
  CorpusReader reader_;
  std::int64_t bytes_;
};

std::uint64_t hash_of(const Document& document) { return XXH3_64bits(document.text.data(), document.text.size()); }

/// All documents of a pass, their texts and their order, in one number.
class PassDigest {
 public:
  void add(std::uint64_t document_hash) {
    const std::array<std::uint64_t, 2> both = {value_, document_hash};
    value_ = XXH3_64bits(both.data(), sizeof both);
  }
  std::uint64_t value() const { return value_; }

 private:
  std::uint64_t value_ = 0;
};

// Records of the batch's documents: from the journal as far as it knows them, the rest found out now.
void look_at(const std::vector<Document>& batch, const HoldOut& hold_out, BuildJournal& journal, Workers& workers,
             std::vector<DocumentRecord>& records) {
  std::vector<DocumentRecord> known = journal.next_known(batch.size());
  records.assign(batch.size(), {});
  workers.each(static_cast<std::int64_t>(batch.size()), [&](std::int64_t i) {
    const auto at = static_cast<std::size_t>(i);
    DocumentRecord& record = records[at];
    record.text_hash = hash_of(batch[at]);
    if (at < known.size() && known[at].text_hash == record.text_hash) {
      record = known[at];
      return;
    }
    record.fingerprint = fingerprint(batch[at].text);
    record.held_out = hold_out.draws(batch[at].text);
  });
  std::size_t same = 0;
  while (same < known.size() && known[same].text_hash == records[same].text_hash) ++same;
  journal.confirm(same, same == batch.size());
  journal.append(std::span(records).subspan(same));
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
  ShardPass(const CorpusBuildOptions& options, const fs::path& folder, const FirstPass& found,
            const Tokenizer& tokenizer, Workers& workers)
      : found_(found),
        tokenizer_(tokenizer),
        workers_(workers),
        chat_(options.corpus.fields.chat),
        last_reply_alone_(options.last_reply_alone),
        train_({folder / "train", "train", options.source, options.shard_tokens, chat_.has_value()}, tokenizer),
        validation_({folder / "validation", "validation", options.source, options.shard_tokens, chat_.has_value()},
                    tokenizer),
        names_(folder / "held_out.txt"),
        reader_(options) {}

  std::int64_t finished_documents() const { return train_.finished_documents() + validation_.finished_documents(); }

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
    if (digest_.value() != found_.digest) {
      fail(ExitCode::bad_data,
           "the input changed while it was read: {} documents in both passes, but not the same; build again when "
           "nothing writes to it",
           first_);
    }
    train_.finish();
    validation_.finish();
    names_.finish();
  }

  void tell(CorpusBuildResult& result) const {
    result.train_documents = train_.documents();
    result.train_bytes = train_.bytes();
    result.train_tokens = train_.tokens();
    result.validation_documents = validation_.documents();
    result.validation_bytes = validation_.bytes();
    result.validation_tokens = validation_.tokens();
  }

 private:
  // Verdicts belong to documents by their place, so every pass must find the same ones.
  void check_count(std::size_t now, bool more_may_come) const {
    const std::size_t before = found_.verdicts.size();
    if (now == before || (more_may_come && now < before)) return;
    fail(ExitCode::bad_data,
         "the input changed while it was read: {} documents in the first pass, {}{} in the last; build again when "
         "nothing writes to it",
         before, now > before ? "at least " : "", now);
  }

  void encode(const std::vector<Document>& batch) {
    encoded_.assign(batch.size(), {});
    hashes_.resize(batch.size());
    const auto each = [&](const auto& work) {
      workers_.each(static_cast<std::int64_t>(batch.size()),
                    [&](std::int64_t i) { work(static_cast<std::size_t>(i)); });
    };
    const auto kept = [&](std::size_t i) { return found_.verdicts[first_ + i] == Verdict::keep; };
    each([&](std::size_t i) {
      hashes_[i] = hash_of(batch[i]);
      if (!kept(i)) return;
      const std::size_t border = found_.hold_out.trained_bytes(first_ + i, batch[i].text);
      encoded_[i].trained_bytes = chat_ && border > 0 ? batch[i].text.size() : border;
    });
    std::int64_t trained = train_.documents();
    std::int64_t held_out = validation_.documents();
    for (std::size_t i = 0; i < batch.size(); ++i) {
      digest_.add(hashes_[i]);
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
    SplitWriter& split = trained ? train_ : validation_;
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
  SplitWriter train_;
  SplitWriter validation_;
  FileWriter names_;
  BatchReader reader_;
  PassDigest digest_;
  std::vector<std::uint64_t> hashes_;
  std::vector<EncodedDocument> encoded_;
  std::size_t first_ = 0;  // document of the next batch
};

}  // namespace

FirstPass find_duplicates(const CorpusBuildOptions& options, const fs::path& folder, BuildJournal& journal, Pace pace,
                          Workers& workers, CorpusBuildResult& result) {
  DuplicateFinder finder(folder);
  BatchReader reader(options);
  std::vector<Document> batch;
  std::vector<DocumentRecord> records;
  PassDigest digest;
  HoldOut hold_out(options.hold_out, options.seed);
  while (reader.next(batch)) {
    look_at(batch, hold_out, journal, workers, records);
    for (std::size_t i = 0; i < batch.size(); ++i) {
      digest.add(records[i].text_hash);
      finder.add(records[i].fingerprint);
      hold_out.add(records[i].held_out, batch[i].text.size());
    }
    pace.at(reader.read_bytes());
  }
  result.read = reader.counts();
  std::vector<Verdict> verdicts = finder.finish(options.near_threshold);
  for (const Verdict verdict : verdicts) {
    result.exact_duplicates += verdict == Verdict::exact_duplicate ? 1 : 0;
    result.near_duplicates += verdict == Verdict::near_duplicate ? 1 : 0;
  }
  hold_out.finish(verdicts);
  return {std::move(verdicts), digest.value(), std::move(hold_out)};
}

void write_shards(const CorpusBuildOptions& options, const fs::path& folder, const FirstPass& found,
                  const Tokenizer& tokenizer, const BuildHooks& hooks, Pace pace, Workers& workers,
                  CorpusBuildResult& result) {
  ShardPass pass(options, folder, found, tokenizer, workers);
  hooks.say(pass.finished_documents() == 0
                ? std::string("writing shards")
                : fmt::format("writing shards; {} documents stand in finished ones", pass.finished_documents()));
  pass.run(pace);
  pass.tell(result);
}

}  // namespace shoestring
