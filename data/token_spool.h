// Documents of one rank on their way into shards: where a shard ends depends on the tokens of all before it, so each
// rank first encodes what it has read, and the shards are then laid out by all ranks from all spools.
//
// Two files: the tokens, 4 bytes each as a masked shard has them (shard_format.h), and 16 bytes a document with its
// length and a checksum, by which a build that goes on finds what it has already. The disk holds the tokens twice until
// the shards are written.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "data/build_ranks.h"
#include "data/document_sink.h"
#include "data/split_writer.h"
#include "data/working_file.h"

namespace shoestring {

class TokenSpool final : public DocumentSink {
 public:
  /// What an earlier build left is taken up as far as it is sound.
  TokenSpool(const std::filesystem::path& folder, const SplitOptions& split, const Tokenizer& tokenizer, int rank);
  /// Keeps what was appended, as far as it can, for a build that goes on.
  ~TokenSpool() override;
  TokenSpool(const TokenSpool&) = delete;
  TokenSpool& operator=(const TokenSpool&) = delete;

  void append(std::span<const std::uint32_t> ids, std::size_t text_bytes) override;
  void append_masked(std::span<const std::uint32_t> ids, std::span<const std::uint8_t> learned) override;
  void finish() override;

  static void remove(const std::filesystem::path& folder, const std::string& split, int rank);

 private:
  void add(std::span<const std::uint32_t> words, std::size_t text_bytes);
  void flush();

  WorkingFile tokens_file_, lengths_file_;
  bool masked_;
  std::uint32_t end_of_document_;
  std::vector<std::uint32_t> pending_tokens_;
  std::vector<std::uint64_t> pending_lengths_;
  std::int64_t written_tokens_ = 0, written_documents_ = 0;
};

/// Lays out the shards of a split from the spools of all ranks: the shards that one SplitWriter with these options
/// would have written. Each rank writes every size()-th; one that stands is left as it is. All ranks call it, and
/// return when all shards stand.
void write_spooled_shards(const std::filesystem::path& folder, const SplitOptions& options, const Tokenizer& tokenizer,
                          BuildRanks& ranks);

}  // namespace shoestring
