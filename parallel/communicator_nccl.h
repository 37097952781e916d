// Ranks with one CUDA device each, in device memory.
//
// NCCL is loaded when the first communicator is made, not when the program starts: a build with CUDA runs on machines
// without it. Operations are enqueued on one stream. The host waits in `Pending::wait`, in send and recv outside a
// group, in `barrier` and in `split`, and there the watchdog looks; everything else returns once its operation is in
// the stream.
//
// When a peer dies, what waits for it stays in the stream until the next of those waits: it throws Error(io) if NCCL
// has noticed, which it does across machines, and otherwise Error(hang) after the timeout. `Stream::synchronize` has no
// watchdog and would wait for ever: wait here first. After an error, or an abort, the communicator, its parent and its
// splits are given up together, so that nothing of theirs runs on the device any more; every later operation of theirs
// throws the same code.
//
// Freeing device memory waits for what is enqueued. An exception that leaves operations under way should therefore
// destroy the communicator, which gives it up, before the tensors: declare it after them. Dropping a Pending that is
// not finished gives its communicator up too.
#pragma once

#include <memory>
#include <string>

#include "parallel/communicator.h"

namespace shoestring {

/// Why NCCL cannot be used in this process (build, library or device); empty if it can.
std::string nccl_refusal();

/// A communicator of the same ranks as `bootstrap`, which carries NCCL's id to them; collective. Every rank has its own
/// device, that of its CUDA `stream`, which becomes this thread's current one. Throws Error(missing_input) with
/// nccl_refusal's reason.
///
/// `bootstrap` and `stream` outlive the communicator, its splits and their messages; all of these belong to one thread.
/// `abort` goes through `bootstrap`, which ends the other ranks as its back end does: under MPI at once; other threads
/// learn of it at their next operation on `bootstrap`, or when a wait here ends with the timeout.
std::unique_ptr<Communicator> nccl_communicator(Communicator& bootstrap, Stream& stream);

}  // namespace shoestring
