// What each rank reads for itself and all must read alike: data, tokenizer, questions, weights. A relative path, or a
// disk of a host's own, can lead every rank to other files under the same recipe.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "parallel/communicator.h"

namespace shoestring {

/// One of them, as this rank has it.
struct ReadByAll {
  std::string what;   ///< with the path or key that leads there: "the tokenizer (shards/tokenizer.model)"
  std::string value;  ///< all that counts: a hash, or lines of text
};

/// Throws Error(bad_data), the same on every rank, where ranks have another value than rank 0: the first such entry,
/// the ranks, the host of the first of them, and the first line in which the two differ. Collective; every rank names
/// as many things, in the same order.
void check_alike(Communicator& world, const std::vector<ReadByAll>& things);

/// Throws Error(missing_input), the same on every rank, naming ranks and the host of the first, where they do not see
/// the `folder` that rank 0 sees under this name; Error(io) where rank 0 cannot write there. Collective. The file
/// system of a network may take `patience_seconds` to show on one host what another has written.
void check_shared_folder(Communicator& world, const std::filesystem::path& folder, double patience_seconds = 5);

}  // namespace shoestring
