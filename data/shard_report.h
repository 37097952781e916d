// What a shard holds, and whether it is sound: the answers behind `data inspect` and `data verify`.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "data/shard.h"

namespace shoestring {

struct ShardReport {
  ShardInfo info;
  std::uint64_t shortest_document = 0;  ///< tokens, end-of-document id included
  std::uint64_t longest_document = 0;
  double mean_document = 0;
  std::uint64_t learned_tokens = 0;  ///< all, but of a masked shard
};

/// Opens the shard (throws as Shard::open does) and measures its documents; reads the tokens of a masked one only.
ShardReport inspect_shard(const std::string& path);

/// One thing wrong with a shard.
struct ShardFault {
  std::string text;         ///< names file, place and rule, and what to do
  std::int64_t block = -1;  ///< block of tokens, or -1
};

struct ShardVerdict {
  ShardInfo info;  ///< as far as it could be read
  std::uint64_t blocks_checked = 0;
  std::uint64_t documents_checked = 0;
  std::vector<ShardFault> faults;  ///< at most 100
  std::uint64_t fault_count = 0;
  bool sound() const { return fault_count == 0; }
};

/// Reads everything: every block against its checksum and the vocabulary, every document against the rule that it ends
/// with the end-of-document id and, but in a masked shard, holds it nowhere else. A bad shard is a verdict, not an
/// exception; Error(io) and Error(missing_input) are thrown. `tell` is told often how many bytes of tokens were read.
ShardVerdict verify_shard(const std::string& path, const std::function<void(std::int64_t)>& tell = nullptr);

/// The shard files that `path` names: itself, or a directory's *.h5 in name order. Throws Error(missing_input) when
/// there is none.
std::vector<std::string> list_shards(const std::string& path);

}  // namespace shoestring
