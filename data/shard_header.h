// Internal to the shard reader: the metadata of a shard, walked before HDF5's library sees the file.
//
// The library (1.10) trusts what it reads once a checksum fits, and a checksum is no protection against who can compute
// one: with one changed byte it follows addresses and lengths out of its memory. What our writer makes is simple: a
// superblock, a root group whose three links and few attributes lie in its own object header, three datasets with one
// header each. This file accepts nothing else, with bounds on every address, length and count; what the values mean is
// judged in shard_shape.h.
#pragma once

#include <string>

#include "data/shard_file.h"

namespace shoestring::shard_header {

/// Throws Error(bad_data) naming the rule that the superblock or an object header of the file breaks, and as
/// ShardFile::read.
void check(const ShardFile& file, const StoragePatience& patience);

/// The error for a file that is no shard.
[[noreturn]] void refuse(const std::string& path, const std::string& rule);

}  // namespace shoestring::shard_header
