// The second reading: documents to shards, by the verdicts of the first.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <future>
#include <optional>
#include <utility>

#include "data/batch_reader.h"
#include "data/chat_tokens.h"
#include "data/corpus_passes.h"
#include "data/near_duplicates.h"
#include "data/split_writer.h"
#include "data/token_spool.h"
#include "kernels/base/file.h"
#include "kernels/base/json.h"

namespace shoestring {
namespace {

namespace fs = std::filesystem;
using Content = std::array<std::uint64_t, 2>;

fs::path names_path(const fs::path& folder, int rank, int ranks) {
  return folder / (ranks == 1 ? "held_out.txt" : fmt::format("held_out.{}.txt", rank));
}

/// Ids in EncodedBatch::ids.
struct Slice {
  std::size_t worker = 0, begin = 0, count = 0;
};

/// A document's two sides as tokens; a side without text has none, nor has one that stands in a finished shard.
struct EncodedDocument {
  bool kept = false;
  std::size_t trained_bytes = 0;
  bool encodes_trained = false, encodes_held_out = false;
  Slice trained, held_out;
  std::vector<std::uint8_t> learned;  ///< of a conversation, which lies on one side whole
};

/// Documents on their way: read, encoded, written.
struct EncodedBatch {
  std::vector<Document> documents;
  std::vector<EncodedDocument> encoded;         ///< [documents]
  std::vector<std::vector<std::uint32_t>> ids;  ///< [workers]: of one document behind the other

  std::span<const std::uint32_t> operator[](const Slice& slice) const {
    return std::span(ids[slice.worker]).subspan(slice.begin, slice.count);
  }
};

/// The second pass: both splits, by the verdicts of the first. While a batch is encoded the one before is written.
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

  void run(BuildPace pace) {
    EncodedBatch batch;
    EncodedBatch written;  // what `writing` is at; that ends first
    std::future<void> writing;
    const auto wait = [&] {
      if (writing.valid()) writing.get();
    };
    while (reader_.next(batch.documents)) {
      check_count(first_ + batch.documents.size(), true);
      encode(batch);
      first_ += batch.documents.size();
      wait();
      pace.at(reader_.read_bytes(), train_.tokens() + validation_.tokens());
      std::swap(batch, written);
      writing = std::async(std::launch::async, [&] { write(written); });
    }
    wait();
    check_count(first_, false);
    if (digest_.value() != found_.input.digest) {
      throw InputChanged(ExitCode::bad_data,
                         fmt::format("the input changed since it was read first: {} documents both times, but not the "
                                     "same; build again when nothing writes to it",
                                     first_));
    }
    std::future<void> other = std::async(std::launch::async, [&] {  // both wait for the disk
      validation_.finish();
      names_.finish();
    });
    train_.finish();
    other.get();
  }

 private:
  // Verdicts belong to documents by their place, so every pass must find the same ones.
  void check_count(std::size_t now, bool more_may_come) const {
    const auto before = static_cast<std::size_t>(found_.fates->count());
    if (now == before || (more_may_come && now < before)) return;
    throw InputChanged(ExitCode::bad_data,
                       fmt::format("the input changed since it was read first: {} documents in the first pass, {}{} in "
                                   "the last; build again when nothing writes to it",
                                   before, now > before ? "at least " : "", now));
  }

  void encode(EncodedBatch& batch) {
    const std::vector<Document>& documents = batch.documents;
    batch.encoded.assign(documents.size(), {});
    batch.ids.resize(static_cast<std::size_t>(workers_.count()));
    contents_.resize(documents.size());
    for (std::size_t i = 0; i < documents.size(); ++i) {
      const DocumentFate fate = (*found_.fates)[static_cast<std::int64_t>(first_ + i)];
      batch.encoded[i].kept = fate.verdict == DocumentVerdict::keep;
    }
    workers_.each(static_cast<std::int64_t>(documents.size()), [&](std::int64_t at) {
      const auto i = static_cast<std::size_t>(at);
      EncodedDocument& document = batch.encoded[i];
      const std::string& text = documents[i].text;
      contents_[i] = content_of(text);
      if (!document.kept) return;
      const std::size_t border = found_.hold_out.trained_bytes(first_ + i, text);
      document.trained_bytes = chat_ && border > 0 ? text.size() : border;
    });
    for (std::size_t i = 0; i < documents.size(); ++i) {
      digest_.add(contents_[i]);
      EncodedDocument& document = batch.encoded[i];
      if (!document.kept) continue;
      if (document.trained_bytes > 0) document.encodes_trained = !train_.stands(trained_++);
      if (document.trained_bytes < documents[i].text.size()) {
        document.encodes_held_out = !validation_.stands(held_out_++);
      }
    }
    std::atomic<std::size_t> next{0};
    workers_.run([&](int worker) {
      const auto own = static_cast<std::size_t>(worker);
      std::vector<std::uint32_t> ids = std::move(batch.ids[own]);  // not beside the others' in one line of cache
      ids.clear();
      for (std::size_t i = next++; i < documents.size(); i = next++) {
        encode(documents[i], own, ids, batch.encoded[i]);
      }
      batch.ids[own] = std::move(ids);
    });
  }

  void encode(const Document& document, std::size_t worker, std::vector<std::uint32_t>& ids,
              EncodedDocument& encoded) const {
    const std::string_view text = document.text;
    const auto add = [&](std::string_view side) {
      const std::size_t begin = ids.size();
      chat_ ? encode_conversation(document, ids, encoded.learned) : tokenizer_.encode(side, ids);
      return Slice{worker, begin, ids.size() - begin};
    };
    if (encoded.encodes_trained) encoded.trained = add(text.substr(0, encoded.trained_bytes));
    if (encoded.encodes_held_out) encoded.held_out = add(text.substr(encoded.trained_bytes));
  }

  void encode_conversation(const Document& line, std::vector<std::uint32_t>& ids,
                           std::vector<std::uint8_t>& learned) const {
    Conversation conversation =
        read_conversation(parse_json(line.text, line.name, ExitCode::bad_data, {.exact = true}), line.name);
    if (last_reply_alone_) {
      for (std::size_t i = 0; i + 1 < conversation.messages.size(); ++i) conversation.messages[i].learned = false;
    }
    try {
      ChatTokens tokens = encode_chat(render_chat(*chat_, conversation, {.training = true}), tokenizer_);
      ids.insert(ids.end(), tokens.ids.begin(), tokens.ids.end());
      learned = std::move(tokens.learned);
    } catch (const Error& error) {
      fail(error.code(), "{}: {}", line.name, error.what());
    }
  }

  void write(const EncodedBatch& batch) {
    for (std::size_t i = 0; i < batch.documents.size(); ++i) {
      if (!batch.encoded[i].kept) continue;
      chat_ ? write_conversation(batch, i) : write_text(batch, i);
    }
  }

  void write_conversation(const EncodedBatch& batch, std::size_t i) {
    const EncodedDocument& encoded = batch.encoded[i];
    const bool trained = encoded.trained_bytes > 0;
    DocumentSink& split = trained ? train_ : validation_;
    if (trained ? encoded.encodes_trained : encoded.encodes_held_out) {
      split.append_masked(batch[trained ? encoded.trained : encoded.held_out], encoded.learned);
    } else {
      split.pass();
    }
    if (!trained) names_.write(batch.documents[i].name + "\n");
  }

  void write_text(const EncodedBatch& batch, std::size_t i) {
    const Document& document = batch.documents[i];
    const EncodedDocument& encoded = batch.encoded[i];
    const std::size_t border = encoded.trained_bytes;
    if (border > 0) encoded.encodes_trained ? train_.append(batch[encoded.trained], border) : train_.pass();
    if (border == document.text.size()) return;
    encoded.encodes_held_out ? validation_.append(batch[encoded.held_out], document.text.size() - border)
                             : validation_.pass();
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
  std::size_t first_ = 0;                    // document of the next batch
  std::int64_t trained_ = 0, held_out_ = 0;  // of the documents before, those with that side
};

// All ranks' counts, and what of their documents goes where.
void run_pass(const BuildPlace& place, const FirstPass& found, const Tokenizer& tokenizer, BuildPace pace,
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

void write_shards(const BuildPlace& place, const FirstPass& found, const Tokenizer& tokenizer, BuildPace pace,
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
