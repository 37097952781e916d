// Not for users of checkpoints: the files of one, written by several ranks at once into one private folder.
//
// Every rank of the team writes its own tensors into files of its own, and reads them back. What the first rank must
// know of them for index and manifest goes to it as text. A rank that fails says so in its place, and every rank throws
// the same error: nobody waits for ever.
#pragma once

#include <filesystem>
#include <string>

#include "core/training/checkpoint.h"
#include "parallel/communicator.h"

namespace shoestring {

inline constexpr const char* kOptimizerStem = "training/optimizer";
inline constexpr const char* kStateFile = "training/state.json";

/// "name" or "training/name", of letters, digits, '.', '_' and '-'.
bool safe_manifest_name(const std::string& name);

/// Runs `work` on this rank and returns what it returned on each. Collective: when it threw on some ranks, the first
/// one's Error is thrown on all.
std::vector<std::string> on_every_rank(Communicator& team, const std::function<std::string()>& work);

/// Writes all files of a checkpoint into `folder`, which only the team knows; collective. The first rank's `files` and
/// `state_json` count. `limit_bytes`: of a file of weights, unless one tensor is larger.
void write_checkpoint(const std::filesystem::path& folder, const CheckpointContent& content, std::int64_t limit_bytes,
                      Communicator& team);

}  // namespace shoestring
