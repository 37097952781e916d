// Internal to the shard reader: accepts or refuses a file's HDF5 shape.
#pragma once

#include <cstdint>
#include <string>

#include "data/shard.h"

namespace shoestring::shard_shape {

/// Reads everything that HDF5 knows about the shard and refuses all but the one shape of shard.h: Error(bad_data)
/// naming the rule. `file_bytes` bounds every extent. Does not look at tokens, doc_ends or checksums.
ShardInfo examine(const std::string& path, std::uint64_t file_bytes);

}  // namespace shoestring::shard_shape
