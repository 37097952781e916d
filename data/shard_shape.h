// Internal to the shard reader: accepts or refuses a file's HDF5 shape.
#pragma once

#include "data/shard.h"
#include "data/shard_file.h"

namespace shoestring::shard_shape {

/// Reads everything that HDF5 knows about the shard and refuses all but the one shape of shard.h: Error(bad_data)
/// naming the rule. The file's size bounds every extent. Does not look at tokens, doc_ends or checksums.
ShardInfo examine(const ShardFile& file, const StoragePatience& patience);

}  // namespace shoestring::shard_shape
