// The shards of one split of a corpus, in the order its documents come.
//
// Shards that an earlier, unfinished build completed are left as they are: their documents are passed by.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "data/document_sink.h"
#include "data/shard.h"
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

std::filesystem::path shard_path(const SplitOptions& options, std::int64_t shard);
ShardWriterOptions shard_writer_options(const SplitOptions& options, const Tokenizer& tokenizer);
/// What a finished shard of the split is; nothing where `path` has none that is sound and of this tokenizer. What a
/// killed writer left beside a finished one is removed.
std::optional<ShardInfo> finished_shard(const std::filesystem::path& path, const SplitOptions& options,
                                        const Tokenizer& tokenizer);

class SplitWriter final : public DocumentSink {
 public:
  /// `tokenizer` must outlive it. Shards in the folder count as finished where they are sound and of this tokenizer;
  /// the first that is not is removed, and so are all behind it.
  SplitWriter(SplitOptions options, const Tokenizer& tokenizer);

  void append(std::span<const std::uint32_t> ids, std::size_t text_bytes) override;
  void append_masked(std::span<const std::uint32_t> ids, std::span<const std::uint8_t> learned) override;
  void finish() override;
  std::int64_t shards() const { return shards_; }

 private:
  ShardWriter& open_writer();
  void appended(std::size_t text_bytes);
  bool take_up(const std::filesystem::path& path);

  SplitOptions options_;
  const Tokenizer& tokenizer_;
  std::unique_ptr<ShardWriter> writer_;
  std::int64_t shards_ = 0;
};

}  // namespace shoestring
