// Internal to the loader: the shards of one source as one run of tokens.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "data/packing.h"
#include "data/shard.h"

namespace shoestring {

class TokenSource {
 public:
  /// Opens the shards that `paths` name, in order. Throws as Shard::open and list_shards do, and Error(bad_data) when
  /// two of them differ in tokenizer, vocabulary or end-of-document id.
  TokenSource(const std::vector<std::string>& paths, const ShardOptions& options);

  const std::vector<Shard>& shards() const { return shards_; }
  std::vector<DocumentEnds> documents() const;
  std::uint64_t tokens() const { return first_token_.back(); }
  std::uint64_t text_bytes() const;    ///< 0 when a shard does not know its own
  std::uint64_t content_hash() const;  ///< of all shards in order

  /// The one that holds this token.
  const Shard& shard_with(std::uint64_t token) const { return shards_[shard_of(token)]; }
  /// See Shard::will_need.
  std::int64_t will_need(std::uint64_t begin, std::uint64_t count) const {
    const std::size_t shard = shard_of(begin);
    return shards_[shard].will_need(begin - first_token_[shard], count);
  }
  /// Tokens [begin, begin + count), which lie in one shard, as a document does. Thread-safe.
  void read(std::uint64_t begin, std::uint64_t count, std::int32_t* out) const {
    const std::size_t shard = shard_of(begin);
    shards_[shard].read(begin - first_token_[shard], count, out);
  }
  /// See Shard::read_marked.
  void read_marked(std::uint64_t begin, std::uint64_t count, std::int32_t* out) const {
    const std::size_t shard = shard_of(begin);
    shards_[shard].read_marked(begin - first_token_[shard], count, out);
  }
  bool masked() const {  ///< some of its shards
    return std::any_of(shards_.begin(), shards_.end(), [](const Shard& shard) { return shard.info().masked(); });
  }
  void prefetch(std::uint64_t begin) const {
    const std::size_t shard = shard_of(begin);
    shards_[shard].prefetch(begin - first_token_[shard]);
  }

 private:
  std::size_t shard_of(std::uint64_t token) const {
    return static_cast<std::size_t>(std::upper_bound(first_token_.begin(), first_token_.end(), token) -
                                    first_token_.begin()) -
           1;
  }

  std::vector<Shard> shards_;
  std::vector<std::uint64_t> first_token_;  ///< [shards + 1]
};

/// Throws Error(bad_data) naming both files unless ids mean the same in both.
void require_same_tokens(const ShardInfo& a, const ShardInfo& b);

}  // namespace shoestring
