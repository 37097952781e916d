// Lets tests that hold host memory run over a communicator of device memory.
#pragma once

#include <memory>

#include "parallel/communicator.h"

namespace shoestring::testing {

/// Copies what is sent to memory of `stream`'s device, hands it to `inner`, and copies back what came. `stream` is the
/// one of `inner` and outlives the communicator, its splits and their messages.
std::unique_ptr<Communicator> staged(std::unique_ptr<Communicator> inner, Stream& stream);

}  // namespace shoestring::testing
