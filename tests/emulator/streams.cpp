#include "tests/emulator/streams.h"

#include <algorithm>
#include <chrono>
#include <exception>
#include <set>
#include <utility>

#include "tests/emulator/device_memory.h"

namespace emulator {

struct EventState {
  std::shared_ptr<Mark> mark;  ///< of the last record
  std::chrono::steady_clock::time_point time;
};

namespace {

std::set<StreamState*>& streams() {
  static auto* const instance = new std::set<StreamState*>;
  return *instance;
}

std::exception_ptr& failure() {
  static std::exception_ptr instance;
  return instance;
}

/// What fails ends what its stream was given behind it, as an error of a device does.
void run_one(StreamState& stream) {
  const std::function<void()> work = std::move(stream.work.front());
  stream.work.pop_front();
  try {
    work();
  } catch (...) {
    stream.work.clear();
    throw;
  }
}

bool is_ahead(const std::shared_ptr<Mark>& mark) { return mark && !mark->reached && !mark->stream->work.empty(); }

bool all_done() {
  return std::all_of(streams().begin(), streams().end(), [](const StreamState* s) { return s->work.empty(); });
}

int g_waits = 0;

void rethrow() {
  if (failure()) std::rethrow_exception(std::exchange(failure(), nullptr));
}

}  // namespace

void enqueue(cudaStream_t stream, std::function<void()> work) {
  if (stream == nullptr) {
    const DeviceAccess access;
    return work();
  }
  stream->work.push_back(std::move(work));
  if (!settings().late) finish(stream);
}

void finish(cudaStream_t stream) {
  rethrow();
  if (stream == nullptr || stream->work.empty()) return;
  ++g_waits;
  const DeviceAccess access;
  while (!stream->work.empty()) run_one(*stream);
}

int waits() { return g_waits; }

void wait_for_all() noexcept {
  if (all_done()) return;
  ++g_waits;
  finish_all();
}

void finish_all() noexcept {
  if (all_done()) return;
  const DeviceAccess access;
  for (StreamState* stream : streams()) {
    while (!stream->work.empty()) {
      try {
        run_one(*stream);
      } catch (...) {
        failure() = std::current_exception();
      }
    }
  }
}

void reach(const std::shared_ptr<Mark>& mark) {
  rethrow();
  if (!is_ahead(mark)) return;
  ++g_waits;
  const DeviceAccess access;
  while (is_ahead(mark)) run_one(*mark->stream);
}

void approach(const std::shared_ptr<Mark>& mark) {
  rethrow();
  if (!is_ahead(mark)) return;
  const DeviceAccess access;
  run_one(*mark->stream);
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  *stream = new StreamState;
  streams().insert(*stream);
  return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  finish_all();
  streams().erase(stream);
  delete stream;
  return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  finish(stream);
  return cudaSuccess;
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  enqueue(stream, [mark = event->mark] { reach(mark); });
  return cudaSuccess;
}

cudaError_t cudaEventCreate(cudaEvent_t* event) {
  *event = new EventState;
  return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  finish_all();  // a record may lie in a stream
  delete event;
  return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  event->mark = std::make_shared<Mark>(Mark{stream, false});
  enqueue(stream, [event, mark = event->mark] {
    mark->reached = true;
    event->time = std::chrono::steady_clock::now();
  });
  return cudaSuccess;
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  reach(event->mark);
  return cudaSuccess;
}
cudaError_t cudaEventQuery(cudaEvent_t event) {
  approach(event->mark);
  return !event->mark || event->mark->reached ? cudaSuccess : cudaErrorNotReady;
}
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t begin, cudaEvent_t end) {
  *milliseconds = std::chrono::duration<float, std::milli>(end->time - begin->time).count();
  return cudaSuccess;
}

}  // namespace emulator
