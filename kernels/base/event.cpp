#include "kernels/base/event.h"

#include <utility>

#include "kernels/base/check.h"

#if SHOESTRING_CUDA
#include "kernels/base/cuda_check.h"
#endif

namespace shoestring {
namespace {

#if SHOESTRING_CUDA
cudaEvent_t event_of(void* native) { return static_cast<cudaEvent_t>(native); }
cudaStream_t stream_of(const Stream& stream) { return static_cast<cudaStream_t>(stream.native()); }
#endif

}  // namespace

Event::Event(Device device) : device_(device) {
  if (device.kind == DeviceKind::cpu || device.dry != nullptr) return;
#if SHOESTRING_CUDA
  cudaEvent_t event = nullptr;
  cuda_check(cudaSetDevice(device.index), "cudaSetDevice");
  cuda_check(cudaEventCreate(&event), "cudaEventCreate");
  native_ = event;
#else
  fail(ExitCode::missing_input, "this build has no CUDA, so it has no events on {}", to_string(device));
#endif
}

Event::~Event() {
#if SHOESTRING_CUDA
  if (native_ != nullptr) cudaEventDestroy(event_of(native_));
#endif
}

Event::Event(Event&& other) noexcept
    : device_(other.device_), native_(std::exchange(other.native_, nullptr)), time_(other.time_) {}

Event& Event::operator=(Event&& other) noexcept {
  std::swap(device_, other.device_);
  std::swap(native_, other.native_);
  std::swap(time_, other.time_);
  return *this;
}

void Event::record(const Stream& stream) {
  check(stream.device() == device_, "an event of {} recorded on a stream of {}", to_string(device_),
        to_string(stream.device()));
  time_ = std::chrono::steady_clock::now();
#if SHOESTRING_CUDA
  if (native_ != nullptr) cuda_check(cudaEventRecord(event_of(native_), stream_of(stream)), "cudaEventRecord");
#endif
}

void Event::block([[maybe_unused]] const Stream& stream) const {
#if SHOESTRING_CUDA
  if (native_ == nullptr) return;
  if (stream.native() == nullptr) return synchronize();  // a CPU stream waits here
  cuda_check(cudaStreamWaitEvent(stream_of(stream), event_of(native_), 0), "cudaStreamWaitEvent");
#endif
}

void Event::synchronize() const {
#if SHOESTRING_CUDA
  if (native_ != nullptr) cuda_check(cudaEventSynchronize(event_of(native_)), "cudaEventSynchronize");
#endif
}

bool Event::reached() const {
#if SHOESTRING_CUDA
  if (native_ == nullptr) return true;
  const cudaError_t status = cudaEventQuery(event_of(native_));
  if (status == cudaErrorNotReady) {
    cudaGetLastError();  // not an error, but CUDA notes it as one, and the check after a launch would find it
    return false;
  }
  cuda_check(status, "cudaEventQuery");
#endif
  return true;
}

double Event::seconds_until(const Event& later) const {
  check(device_ == later.device_, "events of {} and {} have no common clock", to_string(device_),
        to_string(later.device_));
#if SHOESTRING_CUDA
  if (native_ != nullptr) {
    float milliseconds = 0;
    cuda_check(cudaEventElapsedTime(&milliseconds, event_of(native_), event_of(later.native_)), "cudaEventElapsedTime");
    return milliseconds * 1e-3;
  }
#endif
  return std::chrono::duration<double>(later.time_ - time_).count();
}

}  // namespace shoestring
