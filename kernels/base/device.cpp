#include "kernels/base/device.h"

#include <utility>

#include "kernels/base/check.h"
#include "kernels/base/workers.h"

#if SHOESTRING_CUDA
#include "kernels/base/cuda_check.h"
#endif

namespace shoestring {

std::string to_string(Device device) {
  return device.kind == DeviceKind::cpu ? "cpu" : fmt::format("cuda:{}", device.index);
}

int cuda_device_count() {
#if SHOESTRING_CUDA
  int count = 0;  // stays unwritten when there is no driver
  return cudaGetDeviceCount(&count) == cudaSuccess ? count : 0;
#else
  return 0;
#endif
}

DeviceProperties device_properties(Device device) {
  if (device.kind != DeviceKind::cuda || device.index >= cuda_device_count()) {
    fail(ExitCode::missing_input, "there is no {} to ask", to_string(device));
  }
  DeviceProperties properties;
#if SHOESTRING_CUDA
  cudaDeviceProp raw{};
  cuda_check(cudaGetDeviceProperties(&raw, device.index), "cudaGetDeviceProperties");
  const auto attribute = [&](cudaDeviceAttr which) {
    int value = 0;
    cuda_check(cudaDeviceGetAttribute(&value, which, device.index), "cudaDeviceGetAttribute");
    return value;
  };
  properties.name = raw.name;
  properties.capability = raw.major * 10 + raw.minor;
  properties.multiprocessors = raw.multiProcessorCount;
  properties.memory_bytes = static_cast<std::int64_t>(raw.totalGlobalMem);
  properties.clock_hz = attribute(cudaDevAttrClockRate) * 1e3;
  properties.memory_bytes_per_second = attribute(cudaDevAttrMemoryClockRate) * 1e3 * 2 *  // two transfers a clock
                                       attribute(cudaDevAttrGlobalMemoryBusWidth) / 8;
#endif
  return properties;
}

Stream::Stream(Workers& workers) : workers_(&workers) {}

Stream::Stream(Device device) : device_(device) {
  check(device.kind == DeviceKind::cuda, "a CPU stream needs its workers");
  if (device.index < 0 || device.index >= cuda_device_count()) {
    fail(ExitCode::missing_input,
         "{} was asked for, but this process sees {} CUDA devices; check the driver, "
         "CUDA_VISIBLE_DEVICES, and that this build has CUDA",
         to_string(device), cuda_device_count());
  }
#if SHOESTRING_CUDA
  cuda_check(cudaSetDevice(device.index), "cudaSetDevice");
  cudaStream_t stream = nullptr;
  cuda_check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "cudaStreamCreate");
  native_ = stream;
#endif
}

Stream::Stream(Device device, int workers)
    : device_(device), dry_workers_(device.kind == DeviceKind::cpu ? workers : 1) {
  check(dry(), "a stream of {} that is not for a dry run", to_string(device));
}

Stream::~Stream() {
#if SHOESTRING_CUDA
  if (native_ != nullptr) cudaStreamDestroy(static_cast<cudaStream_t>(native_));
#endif
}

Stream::Stream(Stream&& other) noexcept
    : device_(other.device_),
      workers_(std::exchange(other.workers_, nullptr)),
      native_(std::exchange(other.native_, nullptr)),
      dry_workers_(other.dry_workers_) {}

Stream& Stream::operator=(Stream&& other) noexcept {
  std::swap(device_, other.device_);
  std::swap(workers_, other.workers_);
  std::swap(native_, other.native_);
  std::swap(dry_workers_, other.dry_workers_);
  return *this;
}

Workers& Stream::workers() const {
  check(workers_ != nullptr, "a stream on {} has no CPU workers", to_string(device_));
  return *workers_;
}

int Stream::worker_count() const {
  if (dry()) return dry_workers_;
  return workers_ != nullptr ? workers_->count() : 1;
}

void Stream::synchronize() const {
#if SHOESTRING_CUDA
  if (native_ != nullptr) {
    cuda_check(cudaStreamSynchronize(static_cast<cudaStream_t>(native_)), "cudaStreamSynchronize");
  }
#endif
}

}  // namespace shoestring
