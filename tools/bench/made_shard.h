// Shards for benches of what reads them.
#pragma once

#include <cstdint>
#include <string>

namespace shoestring {

/// Documents as long as web text's: lognormal, 950 tokens on average; ids of four bytes, of DeepSeek's vocabulary.
void write_made_shard(const std::string& path, std::uint64_t tokens, std::uint64_t seed);

}  // namespace shoestring
