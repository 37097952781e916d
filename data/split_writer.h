// The shards of one split of a corpus, in the order its documents come.
//
// Shards that an earlier, unfinished build completed are left as they are: their documents are passed by.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>

#include "data/shard_writer.h"
#include "data/tokenizer.h"

namespace shoestring {

struct SplitOptions {
  std::filesystem::path folder;   ///< created where it is missing
  std::string name;               ///< "train": train-00000.h5, ...
  std::string source;             ///< named in the shards
  std::int64_t shard_tokens = 0;  ///< a new shard begins after that many
  bool masked = false;            ///< the shards are
};

class SplitWriter {
 public:
  /// `tokenizer` must outlive it. Shards in the folder count as finished where they are sound and of this tokenizer;
  /// the first that is not is removed, and so are all behind it.
  SplitWriter(SplitOptions options, const Tokenizer& tokenizer);

  /// Whether document `number` of the split stands in a finished shard: it needs no encoding.
  bool stands(std::int64_t number) const { return number < finished_documents_; }
  /// The split's next document, which stands.
  void pass() { ++documents_; }
  /// The split's next document, which does not.
  void append(std::span<const std::uint32_t> ids, std::size_t text_bytes);
  void append_masked(std::span<const std::uint32_t> ids, std::span<const std::uint8_t> learned);
  /// After the last document.
  void finish();

  // Of the whole split, finished shards included; tokens after `finish`.
  std::int64_t documents() const { return documents_; }
  std::int64_t bytes() const { return bytes_; }
  std::int64_t tokens() const { return tokens_; }
  std::int64_t shards() const { return shards_; }
  std::int64_t finished_documents() const { return finished_documents_; }  ///< by an earlier build

 private:
  std::filesystem::path path_of(std::int64_t shard) const;
  ShardWriter& open_writer();
  void appended(std::size_t text_bytes);
  bool take_up(const std::filesystem::path& path);

  SplitOptions options_;
  const Tokenizer& tokenizer_;
  std::unique_ptr<ShardWriter> writer_;
  std::int64_t shards_ = 0;
  std::int64_t finished_documents_ = 0;
  std::int64_t documents_ = 0, bytes_ = 0, tokens_ = 0;
};

}  // namespace shoestring
