#include "data/shard.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstring>
#include <vector>

#include "data/block_check.h"
#include "data/shard_file.h"
#include "data/shard_format.h"
#include "data/shard_shape.h"
#include "kernels/base/check.h"
#include "kernels/base/file.h"

namespace shoestring {

namespace format = shard_format;
using format::kRemedy;

std::uint64_t format::content_hash(const ShardInfo& info, std::span<const std::uint64_t> checksums) {
  std::string text =
      fmt::format("{}\n{}\n{}\n{}\n{}\n{}\n{}\n{}:{}\n{}:{}\n", info.format_version, info.vocabulary_size,
                  info.end_of_document, info.token_bytes, info.block_bytes, info.tokens, info.documents,
                  info.tokenizer_hash.size(), info.tokenizer_hash, info.source.size(), info.source);
  text += fmt::format("{}\n", info.text_bytes);
  text.append(reinterpret_cast<const char*>(checksums.data()), checksums.size_bytes());
  return checksum(text);
}

namespace {

constexpr std::int32_t kIdBits = 0x7FFFFFFF;

/// The largest id of a masked shard's tokens.
std::uint32_t largest_unmarked(const void* tokens, std::uint64_t count) {
  std::uint32_t largest = 0;
  for (std::uint64_t i = 0; i < count; ++i) {
    std::uint32_t token = 0;
    std::memcpy(&token, static_cast<const unsigned char*>(tokens) + 4 * i, 4);
    largest = std::max(largest, token & ~format::kOnlyRead);
  }
  return largest;
}

}  // namespace

struct Shard::State {
  State(const std::string& path, const ShardOptions& shard_options)
      : options(shard_options), file(path, shard_options.io, *shard_options.storage, shard_options.patience) {}

  ShardOptions options;
  ShardFile file;
  std::unique_ptr<const ShardFile> copy;       ///< where there is one; behind `read`
  std::atomic<const ShardFile*> read = &file;  ///< what tokens are read from
  ShardInfo info;
  int block_shift = 0;                   ///< tokens per block, as a power of two
  std::vector<std::uint64_t> checksums;  ///< [token_blocks + doc_ends blocks]
  std::vector<std::uint64_t> ends_copy;  ///< where they are not mapped
  std::span<const std::uint64_t> ends;
  std::unique_ptr<std::atomic<bool>[]> checked;  ///< [token_blocks]

  const ShardFile& tokens() const { return *read.load(std::memory_order_acquire); }
  std::uint64_t block_length(std::uint64_t block) const {
    return std::min<std::uint64_t>(info.block_bytes, info.tokens * info.token_bytes - block * info.block_bytes);
  }
  void load_index();
  void copy_doc_ends();
  void check_doc_ends() const;
  void check_block(std::uint64_t block) const;
  void touch(std::uint64_t begin, std::uint64_t count) const;
};

void Shard::State::load_index() {
  const std::uint64_t end_blocks = format::blocks(info.documents * 8, info.block_bytes);
  checksums.resize(info.token_blocks + end_blocks);
  file.read(info.checksums_offset, checksums.size() * 8, checksums.data(), options.patience);
  const std::uint64_t hash = format::content_hash(info, checksums);
  if (hash != info.content_hash) {
    fail(ExitCode::bad_data, "{}: attributes and {} do not match content_hash ({:016x}, stored {:016x}); {}", info.path,
         format::kBlockChecksums, hash, info.content_hash, kRemedy);
  }
  if (const unsigned char* map = file.map(); map != nullptr) {
    ends = {reinterpret_cast<const std::uint64_t*>(map + info.doc_ends_offset), info.documents};
  } else {
    copy_doc_ends();
  }
  block_shift = std::countr_zero(info.block_bytes / info.token_bytes);
  checked = std::make_unique<std::atomic<bool>[]>(info.token_blocks);
}

void Shard::State::copy_doc_ends() {
  ends_copy.resize(info.documents);
  file.read(info.doc_ends_offset, info.documents * 8, ends_copy.data(), options.patience);
  ends = ends_copy;
}

void Shard::State::check_doc_ends() const {
  const auto* bytes = reinterpret_cast<const unsigned char*>(ends.data());
  for (std::uint64_t block = info.token_blocks; block < checksums.size(); ++block) {
    const std::uint64_t at = (block - info.token_blocks) * info.block_bytes;
    const std::uint64_t length = std::min<std::uint64_t>(info.block_bytes, ends.size_bytes() - at);
    if (checksum(bytes + at, length) != checksums[block]) {
      fail(ExitCode::bad_data, "{}: {} bytes {} to {} (file byte {}) do not match checksum {}; {}", info.path,
           format::kDocEnds, at, at + length, info.doc_ends_offset + at, block, kRemedy);
    }
  }
  std::uint64_t previous = 0;
  for (std::uint64_t document = 0; document < ends.size(); ++document) {
    if (ends[document] <= previous) {
      fail(ExitCode::bad_data, "{}: {}[{}] = {} does not rise above {}; {}", info.path, format::kDocEnds, document,
           ends[document], previous, kRemedy);
    }
    previous = ends[document];
  }
  if (previous != info.tokens) {
    fail(ExitCode::bad_data, "{}: the last document ends at token {} of {}; {}", info.path, previous, info.tokens,
         kRemedy);
  }
}

void Shard::State::check_block(std::uint64_t block) const {
  const std::uint64_t at = block * info.block_bytes;
  const std::uint64_t length = block_length(block);
  const std::uint64_t offset = info.tokens_offset + at;
  struct Seen {
    std::uint64_t sum = 0;
    std::uint32_t largest = 0;
  } seen;
  const auto look = [&](const unsigned char* bytes) -> Seen {
    return {checksum(bytes, length), info.masked() ? largest_unmarked(bytes, length / 4)
                                                   : largest_token(bytes, length / info.token_bytes, info.token_bytes)};
  };
  const ShardFile& from = tokens();
  if (const unsigned char* map = from.map(); map != nullptr) seen = look(map + offset);
  if (from.map() == nullptr) {
    std::vector<unsigned char> buffer(length);
    from.read(offset, length, buffer.data(), options.patience);
    seen = look(buffer.data());
  }
  if (seen.sum != checksums[block]) {
    fail(ExitCode::bad_data, "{}: block {} of {} ({} bytes from file byte {}) does not match its checksum; {}",
         from.path(), block, format::kTokens, length, offset, kRemedy);
  }
  if (seen.largest >= info.vocabulary_size) {
    fail(ExitCode::bad_data,
         "{}: block {} of {} ({} bytes from file byte {}) holds id {}, beyond the vocabulary of {}; rebuild the shard "
         "with the tokenizer it names",
         info.path, block, format::kTokens, length, offset, seen.largest, info.vocabulary_size);
  }
  checked[block].store(true, std::memory_order_relaxed);
}

void Shard::State::touch(std::uint64_t begin, std::uint64_t count) const {
  const std::uint64_t last = (begin + count - 1) >> block_shift;
  for (std::uint64_t block = begin >> block_shift; block <= last; ++block) {
    if (!checked[block].load(std::memory_order_relaxed)) check_block(block);
  }
}

Shard Shard::open(const std::string& path, const ShardOptions& options) {
  auto state = std::make_unique<State>(path, options);
  state->info = shard_shape::examine(state->file, options.patience);
  state->load_index();
  try {
    state->check_doc_ends();
  } catch (const Error&) {
    if (state->ends_copy.size() == state->ends.size() || state->file.map() != nullptr) throw;
    state->copy_doc_ends();  // the map was lost meanwhile
    state->check_doc_ends();
  }
  return Shard(std::move(state));
}

Shard::Shard(std::unique_ptr<State> state) : state_(std::move(state)) {}
Shard::Shard(Shard&&) noexcept = default;
Shard& Shard::operator=(Shard&&) noexcept = default;
Shard::~Shard() = default;

const ShardInfo& Shard::info() const { return state_->info; }
std::span<const std::uint64_t> Shard::doc_ends() const { return state_->ends; }
void Shard::check_block(std::uint64_t block) const {
  check(block < state_->info.token_blocks, "block {} of {} in {}", block, state_->info.token_blocks, state_->info.path);
  state_->check_block(block);
}

std::int64_t Shard::will_need(std::uint64_t begin, std::uint64_t count) const {
  const std::uint64_t first = begin >> state_->block_shift;
  const std::uint64_t last = (begin + count - 1) >> state_->block_shift;
  const std::uint64_t bytes = (last - first) * state_->info.block_bytes + state_->block_length(last);
  state_->tokens().will_need(state_->info.tokens_offset + first * state_->info.block_bytes, bytes);
  return static_cast<std::int64_t>(bytes);
}

void Shard::read_file(std::uint64_t offset, std::uint64_t bytes, void* out, const StoragePatience& patience) const {
  state_->file.read(offset, bytes, out, patience);
}

bool Shard::has_copy() const { return &state_->tokens() != &state_->file; }
const ShardOptions& Shard::options() const { return state_->options; }

void Shard::read_from(const std::string& copy, ShardIo io) const {
  check(state_->copy == nullptr, "{} has a copy already", state_->info.path);
  auto opened = std::make_unique<ShardFile>(copy, io, system_storage(), StoragePatience{});
  if (opened->bytes() != state_->info.file_bytes) {
    fail(ExitCode::bad_data, "{}: has {} bytes, the shard {} has {}; remove the copy", copy, opened->bytes(),
         state_->info.path, state_->info.file_bytes);
  }
  state_->copy = std::move(opened);
  state_->read.store(state_->copy.get(), std::memory_order_release);
  for (std::uint64_t block = 0; block < state_->info.token_blocks; ++block) state_->checked[block].store(false);
}

void Shard::prefetch(std::uint64_t begin) const {
  const ShardFile& from = state_->tokens();
  const unsigned char* map = from.map();
  if (map == nullptr) return;
  const unsigned char* at = map + state_->info.tokens_offset + begin * state_->info.token_bytes;
  for (int line = 0; line < 16; ++line) __builtin_prefetch(at + 64 * line);
}

void Shard::read(std::uint64_t begin, std::uint64_t count, std::int32_t* out) const {
  read_marked(begin, count, out);
  if (!state_->info.masked()) return;
  for (std::uint64_t i = 0; i < count; ++i) out[i] &= kIdBits;
}

void Shard::read_marked(std::uint64_t begin, std::uint64_t count, std::int32_t* out) const {
  const State& state = *state_;
  const ShardInfo& info = state.info;
  check(begin <= info.tokens && count <= info.tokens - begin, "tokens [{}, +{}) of {} in {}", begin, count, info.tokens,
        info.path);
  if (count == 0) return;
  if (state.options.verify) state.touch(begin, count);
  const std::uint64_t offset = info.tokens_offset + begin * info.token_bytes;
  const ShardFile& from = state.tokens();
  const unsigned char* map = from.map();
  if (map != nullptr) {
    widen_tokens(map + offset, count, info.token_bytes, out);
    map = from.map();
  }
  if (map == nullptr && info.token_bytes == 4) {
    from.read(offset, count * 4, out, state.options.patience);
  } else if (map == nullptr) {
    // The narrow ids come into the upper half of the room for the wide ones and are widened front to back.
    auto* narrow = reinterpret_cast<std::uint16_t*>(out) + count;
    from.read(offset, count * 2, narrow, state.options.patience);
    for (std::uint64_t i = 0; i < count; ++i) {
      std::uint16_t id = 0;
      std::memcpy(&id, narrow + i, 2);
      out[i] = id;
    }
  }
  if (!state.options.verify) {
    const std::uint32_t largest = info.masked() ? largest_unmarked(out, count) : largest_token(out, count, 4);
    if (largest >= info.vocabulary_size) {
      fail(ExitCode::bad_data, "{}: tokens [{}, +{}) hold id {}, beyond the vocabulary of {}; {}", info.path, begin,
           count, largest, info.vocabulary_size, kRemedy);
    }
  }
}

}  // namespace shoestring
