// A closer look at shards, one or those of a folder together: how long their documents are, what their tokens are, how
// they read. Reads every token, each block against its checksum.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "data/shard.h"
#include "data/tokenizer.h"

namespace shoestring {

struct LengthBin {
  std::uint64_t from = 0;  ///< tokens, end of document included; up to twice as many
  std::uint64_t documents = 0;
  std::uint64_t tokens = 0;
};

struct PieceCount {
  std::uint32_t id = 0;
  std::uint64_t count = 0;
  std::string text;  ///< empty where the tokenizer was not given
};

struct DocumentSample {
  std::string place;  ///< "train-00000.h5, document 17"
  std::uint64_t tokens = 0;
  std::string text;  ///< its front
};

struct SourceShare {
  std::uint64_t shards = 0, documents = 0, tokens = 0;
};

struct ShardContents {
  std::uint64_t shards = 0, documents = 0, tokens = 0, text_bytes = 0;
  double tokens_per_byte = 0;  ///< of text, ends of documents not counted; 0 where a shard does not know its text
  std::vector<LengthBin> lengths;
  std::uint64_t distinct_ids = 0;  ///< of the vocabulary, that occur
  std::uint32_t vocabulary_size = 0;
  std::vector<PieceCount> frequent;  ///< the most frequent first; of equals the lower id
  std::vector<DocumentSample> samples;
  std::map<std::string, SourceShare> sources;
};

struct ShardLook {
  const Tokenizer* tokenizer = nullptr;  ///< for texts; the one that made the shards
  std::size_t frequent = 20;
  std::size_t samples = 3;         ///< documents spread evenly
  std::size_t sample_bytes = 400;  ///< of each
  /// Is told often how many tokens were read, of how many.
  std::function<void(std::uint64_t, std::uint64_t)> tell = nullptr;
};

/// Throws as Shard::open and Shard::read do, and Error(bad_data) where shards or tokenizer do not belong together.
ShardContents look_into(const std::vector<std::string>& shards, const ShardLook& look);

}  // namespace shoestring
