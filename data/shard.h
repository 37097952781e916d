// A token shard: one immutable HDF5 file that holds the documents of a corpus as token ids, end to end.
//
//   tokens           [tokens]     u16 (vocabulary up to 65536) or u32, little-endian, contiguous; every document ends
//                                 with the end-of-document id
//   doc_ends         [documents]  u64, position one past each document's last token, strictly rising
//   block_checksums  [blocks]     u64, XXH3-64 of each block of `tokens`, then of each block of `doc_ends`
//   attributes       format_version (1; 2: a masked shard), vocabulary_size, end_of_document, tokenizer_hash, source,
//   counts, block_bytes,
//                    content_hash, and `complete`, written last
//
// A masked shard, of conversations, says of every token whether it is learned: the highest bit of its id, which then
// takes 4 bytes whatever the vocabulary, is set where it is only read. Its documents may hold the end-of-document id
// inside. All tokens of another shard are learned.
//
// HDF5 only opens, validates and locates; tokens are read by mmap or pread at the located offset. The opener accepts
// exactly this shape and nothing else that HDF5 can express. Every block is checked against its checksum, and every id
// in it against the vocabulary, when it is first touched.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "data/storage.h"

namespace shoestring {

inline constexpr std::string_view kShardExtension = ".h5";

/// How tokens come off the disk. mmap costs no call per read; where a page cannot be brought in, the shard is read by
/// pread from then on, which says why that fails, or waits (StoragePatience). What lies behind a network is read by
/// pread, whatever is asked for.
enum class ShardIo { mmap, pread };

struct ShardInfo {
  std::string path;
  std::uint32_t format_version = 0;
  std::uint32_t vocabulary_size = 0;
  std::uint32_t end_of_document = 0;
  std::string tokenizer_hash;  ///< names the tokenizer that made the ids; compared, never parsed
  std::string source;          ///< what the text was, for reports
  std::uint64_t tokens = 0;    ///< end-of-document tokens included
  std::uint64_t documents = 0;
  std::uint64_t text_bytes = 0;    ///< bytes of text behind the tokens (bits per byte); 0 when the writer was not told
  std::uint64_t content_hash = 0;  ///< XXH3-64 over the attributes above and block_checksums: names the content
  std::uint32_t token_bytes = 0;   ///< 2 or 4
  std::uint32_t block_bytes = 0;   ///< bytes of tokens (or of doc_ends) under one checksum
  std::uint64_t token_blocks = 0;
  std::uint64_t file_bytes = 0;
  bool masked() const { return format_version == 2; }
  std::uint64_t tokens_offset = 0;  ///< byte offsets in the file
  std::uint64_t doc_ends_offset = 0;
  std::uint64_t checksums_offset = 0;
};

struct ShardOptions {
  ShardIo io = ShardIo::mmap;
  /// Check each block's checksum and ids on first touch. Off is for measuring; ids are still checked as they are read.
  bool verify = true;
  const ShardStorage* storage = &system_storage();  ///< outlives the shard
  StoragePatience patience{};
};

/// An open shard. Const methods may be called from any number of threads at once. Move-only.
class Shard {
 public:
  /// Opens and validates everything but the tokens. Throws Error(missing_input) when the file is not there, Error(io)
  /// when the system cannot read it, Error(bad_data) naming the file and the rule it breaks; and as StorageWait.
  static Shard open(const std::string& path, const ShardOptions& options = {});
  Shard(Shard&&) noexcept;
  Shard& operator=(Shard&&) noexcept;
  ~Shard();

  const ShardInfo& info() const;
  /// [documents], verified at open; not rising where a page of the map has been lost since.
  std::span<const std::uint64_t> doc_ends() const;

  /// Writes tokens [begin, begin + count) to `out`, widened. Throws Error(bad_data) naming file, block and byte offset
  /// when a block touched here fails its check.
  void read(std::uint64_t begin, std::uint64_t count, std::int32_t* out) const;
  /// The same, but of a token that is only read the sign bit is set as well.
  void read_marked(std::uint64_t begin, std::uint64_t count, std::int32_t* out) const;

  /// Asks the processor for the first few tokens at `begin`; a hint that costs nothing when wrong.
  void prefetch(std::uint64_t begin) const;

  /// Asks the storage for the blocks around tokens [begin, begin + count), which will be read soon; returns their
  /// bytes.
  std::int64_t will_need(std::uint64_t begin, std::uint64_t count) const;

  /// Bytes of the file as it lies on the storage, unchecked, with `patience` in place of the shard's own.
  void read_file(std::uint64_t offset, std::uint64_t bytes, void* out, const StoragePatience& patience) const;
  /// From here on tokens come from `copy`, a file of the same bytes on a disk near by (shard_stage.h), by `io`, whose
  /// blocks are checked on first touch anew; other threads may read meanwhile. Once. Throws as `open` does, and then
  /// nothing has changed.
  void read_from(const std::string& copy, ShardIo io) const;
  bool has_copy() const;
  const ShardOptions& options() const;

  /// Checks one block of tokens, whatever was checked before; throws as `read` does.
  void check_block(std::uint64_t block) const;

 private:
  struct State;
  explicit Shard(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace shoestring
