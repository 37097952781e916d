// Writes one token shard (shard.h): documents in, one file out, all or nothing.
//
// Documents stream to a spool file beside the target, so memory stays bounded whatever their number; `finish` lays the
// shard out under a temporary name, syncs it, renames it and syncs the directory. Until then nothing exists under the
// final name, and whatever the end (exception, full disk, kill) a reader never meets half a shard. Needs room for the
// tokens twice while finishing.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

namespace shoestring {

struct ShardWriterOptions {
  std::uint32_t vocabulary_size = 0;  ///< up to 65536: ids take 2 bytes on disk, else 4
  std::uint32_t end_of_document = 0;  ///< below vocabulary_size
  std::string tokenizer_hash;         ///< at most 256 bytes, not empty
  std::string source;                 ///< at most 256 bytes
  bool masked = false;                ///< says of each token whether it is learned; ids take 4 bytes
};

struct ShardWriteResult {
  std::uint64_t tokens = 0;
  std::uint64_t documents = 0;
  std::uint64_t file_bytes = 0;
  std::uint64_t content_hash = 0;
};

/// Belongs to one thread. Two writers must not share a path.
class ShardWriter {
 public:
  /// Creates spools beside `path` (`path`.partial.*); an earlier writer's leftovers are replaced. Throws
  /// Error(io) with path and reason, Error(usage) when the options contradict themselves.
  ShardWriter(std::string path, const ShardWriterOptions& options);
  /// Without `finish`, removes everything that was written.
  ~ShardWriter();
  ShardWriter(const ShardWriter&) = delete;
  ShardWriter& operator=(const ShardWriter&) = delete;

  /// Adds one document and, behind it, the end-of-document id. `document` is not empty and does not carry the
  /// end-of-document id itself; every id is below vocabulary_size, else Error(bad_data). `text_bytes`: length of its
  /// text, for bits per byte. Throws Error(io) when the disk is full; the writer is of no use afterwards.
  void append(std::span<const std::uint32_t> document, std::uint64_t text_bytes = 0);
  /// To a masked shard: `learned` is 1 for each token that is, 0 for what is only read. The document may hold the
  /// end-of-document id; one that does not end with it gets it, to be read.
  void append_masked(std::span<const std::uint32_t> document, std::span<const std::uint8_t> learned);

  std::uint64_t tokens() const;
  std::uint64_t documents() const;

  /// Commits the shard under its final name. At least one document must have been added.
  ShardWriteResult finish();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace shoestring
