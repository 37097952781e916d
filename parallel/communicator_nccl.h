// Ranks with one CUDA device each, in device memory.
//
// NCCL is loaded when the first communicator is made, not when the program starts: a build with CUDA runs on machines
// without it. Operations are enqueued on one stream; `Pending::wait` and `barrier` wait on the host, everything else
// returns at once. The watchdog covers set-up; a peer that dies later is reported by NCCL at the next operation.
#pragma once

#include <memory>
#include <string>

#include "parallel/communicator.h"

namespace shoestring {

/// Why NCCL cannot be used in this process (build, library or device); empty if it can.
std::string nccl_refusal();

/// A communicator of the same ranks as `bootstrap`, which carries NCCL's id to them; collective. `stream` is a CUDA
/// stream made on this thread, and outlives the communicator and its splits. Every rank has its own device. Throws
/// Error(missing_input) with nccl_refusal's reason.
std::unique_ptr<Communicator> nccl_communicator(Communicator& bootstrap, Stream& stream);

}  // namespace shoestring
