// The runtime of the emulated device: memory from the host's allocator, so that AddressSanitizer fences it; work done
// when it is enqueued, which is in order.
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>

#include "cuda_runtime_api.h"

namespace emulator {

struct StreamState {};
struct EventState {
  std::chrono::steady_clock::time_point time;
};

namespace {
constexpr std::size_t kAlignment = 256;  // as the device's allocator promises

struct Block {
  std::size_t bytes;
  cudaMemoryType type;
};
std::mutex g_mutex;
std::map<const char*, Block>& blocks() {
  static auto* const instance = new std::map<const char*, Block>;  // statics may free after it would have gone
  return *instance;
}

cudaError_t allocate(void** data, std::size_t bytes, cudaMemoryType type) {
  if (posix_memalign(data, kAlignment, bytes) != 0) return cudaErrorMemoryAllocation;
  const std::scoped_lock lock(g_mutex);
  blocks()[static_cast<const char*>(*data)] = {bytes, type};
  return cudaSuccess;
}
cudaError_t give_back(void* data) {
  {
    const std::scoped_lock lock(g_mutex);
    blocks().erase(static_cast<const char*>(data));
  }
  std::free(data);
  return cudaSuccess;
}

}  // namespace

cudaError_t cudaGetDeviceCount(int* count) {
  *count = 1;
  return cudaSuccess;
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int) {
  *properties = {"emulated", 9, 0, 132, std::size_t{1} << 34};
  return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  switch (attribute) {
    case cudaDevAttrComputeCapabilityMajor: *value = 9; break;
    case cudaDevAttrComputeCapabilityMinor: *value = 0; break;
    default: *value = 1;
  }
  return cudaSuccess;
}
cudaError_t cudaSetDevice(int device) { return device == 0 ? cudaSuccess : cudaErrorInvalidValue; }
cudaError_t cudaGetLastError() { return cudaSuccess; }
const char* cudaGetErrorString(cudaError_t) { return "refused by the emulator"; }

cudaError_t cudaMalloc(void** data, std::size_t bytes) { return allocate(data, bytes, cudaMemoryTypeDevice); }
cudaError_t cudaFree(void* data) { return give_back(data); }
cudaError_t cudaMallocHost(void** data, std::size_t bytes) { return allocate(data, bytes, cudaMemoryTypeHost); }
cudaError_t cudaFreeHost(void* data) { return give_back(data); }
cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes, const void* data) {
  const std::scoped_lock lock(g_mutex);
  *attributes = {cudaMemoryTypeUnregistered, 0};
  auto after = blocks().upper_bound(static_cast<const char*>(data));
  if (after == blocks().begin()) return cudaSuccess;
  const auto& [begin, block] = *--after;
  if (static_cast<const char*>(data) < begin + block.bytes) attributes->type = block.type;
  return cudaSuccess;
}
cudaError_t cudaMemset(void* data, int value, std::size_t bytes) {
  std::memset(data, value, bytes);
  return cudaSuccess;
}
cudaError_t cudaMemsetAsync(void* data, int value, std::size_t bytes, cudaStream_t) {
  return cudaMemset(data, value, bytes);
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind, cudaStream_t) {
  std::memcpy(to, from, bytes);
  return cudaSuccess;
}
cudaError_t cudaMemcpy2DAsync(void* to, std::size_t to_pitch, const void* from, std::size_t from_pitch,
                              std::size_t width, std::size_t height, cudaMemcpyKind, cudaStream_t) {
  if (width > to_pitch || width > from_pitch) return cudaErrorInvalidValue;
  for (std::size_t row = 0; row < height; ++row) {
    std::memcpy(static_cast<char*>(to) + row * to_pitch, static_cast<const char*>(from) + row * from_pitch, width);
  }
  return cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  *stream = new StreamState;
  return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  delete stream;
  return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t) { return cudaSuccess; }
cudaError_t cudaStreamWaitEvent(cudaStream_t, cudaEvent_t, unsigned) { return cudaSuccess; }
cudaError_t cudaEventCreate(cudaEvent_t* event) {
  *event = new EventState;
  return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete event;
  return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t) {
  event->time = std::chrono::steady_clock::now();
  return cudaSuccess;
}
cudaError_t cudaEventSynchronize(cudaEvent_t) { return cudaSuccess; }
cudaError_t cudaEventQuery(cudaEvent_t) { return cudaSuccess; }
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t begin, cudaEvent_t end) {
  *milliseconds = std::chrono::duration<float, std::milli>(end->time - begin->time).count();
  return cudaSuccess;
}

}  // namespace emulator
