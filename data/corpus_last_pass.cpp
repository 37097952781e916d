// The second reading: documents to shards, by the verdicts of the first.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <optional>

#include "data/batch_reader.h"
#include "data/chat_tokens.h"
#include "data/corpus_passes.h"
#include "data/split_writer.h"
#include "data/token_spool.h"
#include "kernels/base/file.h"
#include "kernels/base/json.h"

namespace shoestring {
namespace {

namespace fs = std::filesystem;
using Verdict = DuplicateFinder::Verdict;
using Content = std::array<std::uint64_t, 2>;

fs::path names_path(const fs::path& folder, int rank, int ranks) {
  return folder / (ranks == 1 ? "held_out.txt" : fmt::format("held_out.{}.txt", rank));
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
