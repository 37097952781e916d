// Where ranks run: how many of them share one set of processor cores.
#pragma once

#include <string_view>

#include "parallel/communicator.h"

namespace shoestring {

/// Ranks of `world`, this one included, that gave the same `cores` (see Workers::cores_name): a launcher that binds
/// ranks to cores gives each its own, one that does not gives all ranks of a machine the same. Collective.
int ranks_sharing_cores(Communicator& world, std::string_view cores);

}  // namespace shoestring
