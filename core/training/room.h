// Before work: what a run will need beside time is looked for before its first step is paid.
#pragma once

#include <cstdint>
#include <filesystem>

#include "core/recipe/recipe.h"

namespace shoestring {

/// Throws Error(missing_input) where shards that the recipe names are not there. Before the ledger knows of an attempt:
/// a start with a wrong path is none.
void check_inputs(const DataSpec& data);

/// Bytes that this user may still write to the file system of a folder; the most where the system will not say.
std::int64_t free_bytes(const std::filesystem::path& directory);

/// A checkpoint is written beside the one before it, which goes afterwards: room for two, less the one that stands
/// there. Throws Error(io) naming what is free, what is needed and how to change either.
void check_room(const std::filesystem::path& directory, std::int64_t free, std::int64_t checkpoint_bytes,
                bool has_checkpoint);

}  // namespace shoestring
