// Where ranks run: how many of them share one set of processor cores, or one machine.
#pragma once

#include <string_view>

#include "parallel/communicator.h"

namespace shoestring {

/// Ranks of `world`, this one included, that gave the same `name`. Of cores (Workers::cores_name): a launcher that
/// binds ranks to cores gives each its own, one that does not gives all ranks of a machine the same. Or of a machine
/// (machine_name). Collective: no rank is told before every one has asked.
int ranks_sharing(Communicator& world, std::string_view name);

}  // namespace shoestring
