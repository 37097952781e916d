// What a stream of the emulated device was given and has not done yet: it runs in order, when somebody waits for it.
#pragma once

#include <deque>
#include <functional>
#include <memory>

#include "cuda_runtime_api.h"

namespace emulator {

/// A point in a stream; shared by the event that was recorded and by the streams that wait for it.
struct Mark {
  StreamState* stream = nullptr;
  bool reached = false;
};

struct StreamState {
  std::deque<std::function<void()>> work;
};

/// Gives `stream` some work; nullptr is a stream that is never late.
void enqueue(cudaStream_t stream, std::function<void()> work);
/// Runs what `stream` has to do. Throws what its work throws, and so the next.
void finish(cudaStream_t stream);
/// How often the host had something to wait for: in `finish`, `reach`, and where memory is given back.
int waits();
/// Runs every stream's work, as cudaFree does.
void wait_for_all() noexcept;
/// Runs every stream's work; what it throws comes from the next `finish`.
void finish_all() noexcept;
/// Runs the mark's stream until it is reached.
void reach(const std::shared_ptr<Mark>& mark);
/// Runs one piece of work of the mark's stream, if it is not reached.
void approach(const std::shared_ptr<Mark>& mark);

}  // namespace emulator
