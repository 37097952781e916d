// How ranks are named in messages, and texts that one of them tells the others.
#pragma once

#include <string>
#include <vector>

#include "parallel/communicator.h"

namespace shoestring {

/// "rank 1", "ranks 0-3, 6". Of ascending numbers.
std::string ranks_of(const std::vector<int>& ranks);

/// The text of `root`, on every rank. Collective.
std::string broadcast_text(Communicator& world, std::string text, int root);

/// "rank 1 (host node7)", on every rank. Collective.
std::string place_of(Communicator& world, int rank);

}  // namespace shoestring
