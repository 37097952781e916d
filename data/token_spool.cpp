#include "data/token_spool.h"

#include <fmt/format.h>
#include <xxhash.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <optional>

#include "data/shard.h"
#include "data/shard_format.h"
#include "data/shard_writer.h"
#include "kernels/base/check.h"
#include "kernels/base/file.h"

namespace shoestring {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kPendingTokens = std::size_t{1} << 18;
constexpr std::size_t kDocumentsAhead = 4096;

/// A document as its spool describes it.
struct Length {
  std::uint32_t tokens;
  std::uint32_t text_bytes;
  std::uint64_t check;  ///< of the tokens and both numbers
};
static_assert(sizeof(Length) == 2 * sizeof(std::uint64_t));

std::uint64_t check_of(std::span<const std::uint32_t> ids, std::size_t text_bytes) {
  return XXH3_64bits_withSeed(ids.data(), ids.size_bytes(), text_bytes);
}

fs::path path_of(const fs::path& folder, const std::string& split, int rank, const char* what) {
  return folder / fmt::format("{}.{}.{}", split, rank, what);
}

/// A spool from its front on.
class SpoolReader {
 public:
  SpoolReader(const fs::path& folder, const std::string& split, int rank)
      : tokens_path_(path_of(folder, split, rank, "tokens")),
        lengths_path_(path_of(folder, split, rank, "lengths")),
        tokens_file_(open_for_reading(tokens_path_)),
        lengths_file_(open_for_reading(lengths_path_)),
        token_count_(file_bytes(tokens_file_, tokens_path_) / 4),
        document_count_(file_bytes(lengths_file_, lengths_path_) / static_cast<std::int64_t>(sizeof(Length))) {}

  /// Goes on at a document and its first token.
  void seek(std::int64_t document, std::int64_t token) {
    document_ = document;
    token_ = token;
    ahead_.clear();
    next_ = 0;
  }
  /// The next document's; nothing at the end.
  std::optional<Length> next_length() {
    if (next_ == ahead_.size()) {
      const std::int64_t more = std::min<std::int64_t>(kDocumentsAhead, document_count_ - document_);
      if (more <= 0) return std::nullopt;
      ahead_.resize(static_cast<std::size_t>(more));
      next_ = 0;
      read_at(lengths_file_, lengths_path_, document_ * static_cast<std::int64_t>(sizeof(Length)), ahead_.data(),
              more * static_cast<std::int64_t>(sizeof(Length)));
    }
    ++document_;
    return ahead_[next_++];
  }
  /// Its tokens. False where they are not there or others.
  bool tokens_of(const Length& length, std::vector<std::uint32_t>& ids) {
    if (length.tokens > token_count_ - token_) return false;
    ids.resize(length.tokens);
    read_at(tokens_file_, tokens_path_, token_ * 4, ids.data(), std::int64_t{4} * length.tokens);
    token_ += length.tokens;
    return check_of(ids, length.text_bytes) == length.check;
  }

 private:
  fs::path tokens_path_, lengths_path_;
  FileHandle tokens_file_, lengths_file_;
  std::int64_t token_count_, document_count_;
  std::vector<Length> ahead_;
  std::size_t next_ = 0;
  std::int64_t document_ = 0;  // behind those in ahead_ that were given
  std::int64_t token_ = 0;
};

/// Where a shard begins.
struct ShardStart {
  std::int64_t rank = 0;
  std::int64_t document = 0;  // of the rank
  std::int64_t token = 0;     // of its spool
};

// In a shard: one of a masked one has its end in its spool.
std::int64_t tokens_in_shard(std::int64_t spooled, bool masked) { return spooled + (masked ? 0 : 1); }

// As SplitWriter cuts: a shard is full when its documents, each with an end, have enough tokens.
std::vector<ShardStart> starts_of(const fs::path& folder, const SplitOptions& options, int ranks) {
  std::vector<ShardStart> starts;
  std::int64_t in_shard = options.shard_tokens;
  for (int rank = 0; rank < ranks; ++rank) {
    SpoolReader spool(folder, options.name, rank);
    ShardStart at{rank, 0, 0};
    while (const std::optional<Length> length = spool.next_length()) {
      if (in_shard >= options.shard_tokens) {
        starts.push_back(at);
        in_shard = 0;
      }
      in_shard += tokens_in_shard(length->tokens, options.masked);
      ++at.document;
      at.token += length->tokens;
    }
  }
  starts.push_back({ranks, 0, 0});
  return starts;
}

// A masked document as it was spooled.
void append_marked(ShardWriter& writer, std::vector<std::uint32_t>& words, std::vector<std::uint8_t>& learned) {
  learned.clear();
  for (std::uint32_t& word : words) {
    learned.push_back((word & shard_format::kOnlyRead) == 0 ? 1 : 0);
    word &= ~shard_format::kOnlyRead;
  }
  writer.append_masked(words, learned);
}

void write_shard(const fs::path& folder, const SplitOptions& options, const Tokenizer& tokenizer,
                 const ShardStart& begin, const ShardStart& end, const fs::path& path) {
  ShardWriter writer(path.string(), shard_writer_options(options, tokenizer));
  std::vector<std::uint32_t> ids;
  std::vector<std::uint8_t> learned;
  for (std::int64_t rank = begin.rank; rank <= end.rank; ++rank) {
    if (rank == end.rank && end.document == 0) break;  // that spool may not be there
    SpoolReader spool(folder, options.name, static_cast<int>(rank));
    std::int64_t document = 0;
    if (rank == begin.rank) spool.seek(document = begin.document, begin.token);
    for (; rank < end.rank || document < end.document; ++document) {
      const std::optional<Length> length = spool.next_length();
      if (!length) break;
      if (!spool.tokens_of(*length, ids)) {
        fail(ExitCode::bad_data, "{}: tokens of document {} are damaged; remove the folder and build again",
             path_of(folder, options.name, static_cast<int>(rank), "tokens").string(), document);
      }
      options.masked ? append_marked(writer, ids, learned) : writer.append(ids, length->text_bytes);
    }
  }
  writer.finish();
}

}  // namespace

TokenSpool::TokenSpool(const fs::path& folder, const SplitOptions& split, const Tokenizer& tokenizer, int rank)
    : tokens_file_(path_of(folder, split.name, rank, "tokens"), WorkingFile::Content::kept),
      lengths_file_(path_of(folder, split.name, rank, "lengths"), WorkingFile::Content::kept),
      masked_(split.masked),
      end_of_document_(static_cast<std::uint32_t>(tokenizer.special().end_of_document)) {
  SpoolReader spool(folder, split.name, rank);
  std::vector<std::uint32_t> ids;
  while (const std::optional<Length> length = spool.next_length()) {
    if (!spool.tokens_of(*length, ids)) break;
    ++finished_documents_;
    written_tokens_ += length->tokens;
    bytes_ += length->text_bytes;
    tokens_ += tokens_in_shard(length->tokens, masked_);
  }
  written_documents_ = finished_documents_;
}

TokenSpool::~TokenSpool() {
  try {
    flush();
  } catch (const Error&) {  // what is lost is encoded again
  }
}

void TokenSpool::append(std::span<const std::uint32_t> ids, std::size_t text_bytes) { add(ids, text_bytes); }

void TokenSpool::append_masked(std::span<const std::uint32_t> ids, std::span<const std::uint8_t> learned) {
  check(masked_ && !ids.empty() && ids.size() == learned.size(), "{} tokens, {} flags for {}", ids.size(),
        learned.size(), tokens_file_.path().string());
  std::vector<std::uint32_t> words(ids.begin(), ids.end());
  for (std::size_t i = 0; i < words.size(); ++i) {
    if (learned[i] == 0) words[i] |= shard_format::kOnlyRead;
  }
  if (ids.back() != end_of_document_) words.push_back(end_of_document_ | shard_format::kOnlyRead);
  add(words, 0);
}

void TokenSpool::add(std::span<const std::uint32_t> ids, std::size_t text_bytes) {
  check(!stands(documents_), "document {} of {} is written a second time", documents_, tokens_file_.path().string());
  const Length length{static_cast<std::uint32_t>(ids.size()), static_cast<std::uint32_t>(text_bytes),
                      check_of(ids, text_bytes)};
  pending_tokens_.insert(pending_tokens_.end(), ids.begin(), ids.end());
  pending_lengths_.resize(pending_lengths_.size() + 2);
  std::memcpy(&pending_lengths_[pending_lengths_.size() - 2], &length, sizeof length);
  ++documents_;
  bytes_ += static_cast<std::int64_t>(text_bytes);
  tokens_ += tokens_in_shard(static_cast<std::int64_t>(ids.size()), masked_);
  if (pending_tokens_.size() >= kPendingTokens) flush();
}

// Tokens first: a length without them would not be sound.
void TokenSpool::flush() {
  tokens_file_.write(written_tokens_ * 4, pending_tokens_.data(), pending_tokens_.size() * 4);
  lengths_file_.write(written_documents_ * static_cast<std::int64_t>(sizeof(Length)), pending_lengths_.data(),
                      pending_lengths_.size() * 8);
  written_tokens_ += static_cast<std::int64_t>(pending_tokens_.size());
  written_documents_ += static_cast<std::int64_t>(pending_lengths_.size() / 2);
  pending_tokens_.clear();
  pending_lengths_.clear();
}

void TokenSpool::finish() {
  flush();
  tokens_file_.cut(written_tokens_ * 4);
  lengths_file_.cut(written_documents_ * static_cast<std::int64_t>(sizeof(Length)));
  tokens_file_.sync();
  lengths_file_.sync();
}

void TokenSpool::remove(const fs::path& folder, const std::string& split, int rank) {
  for (const char* what : {"tokens", "lengths"}) {
    std::error_code error;
    fs::remove(path_of(folder, split, rank, what), error);
    if (error) fail(ExitCode::io, "{}: cannot be removed: {}", folder.string(), system_reason(error.value()));
  }
}

void write_spooled_shards(const fs::path& folder, const SplitOptions& options, const Tokenizer& tokenizer,
                          BuildRanks& ranks) {
  make_directories(options.folder);
  ranks.wait_for_all();
  const std::vector<ShardStart> starts = starts_of(folder, options, ranks.size());
  for (std::size_t shard = static_cast<std::size_t>(ranks.rank()); shard + 1 < starts.size();
       shard += static_cast<std::size_t>(ranks.size())) {
    const fs::path path = shard_path(options, static_cast<std::int64_t>(shard));
    if (!finished_shard(path, options, tokenizer)) {
      write_shard(folder, options, tokenizer, starts[shard], starts[shard + 1], path);
    }
  }
  ranks.wait_for_all();
}

}  // namespace shoestring
