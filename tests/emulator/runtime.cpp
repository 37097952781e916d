// The runtime of the emulated device: what it says of itself, its memory, and copies. Pinned memory is the host's own;
// a copy from pageable memory reads it at once, one to it waits for the stream, as the runtime of CUDA does.
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "tests/emulator/device_memory.h"
#include "tests/emulator/streams.h"

namespace emulator {
namespace {

std::mutex g_mutex;
std::map<const char*, std::size_t>& pinned() {
  static auto* const instance = new std::map<const char*, std::size_t>;  // statics may free after it would have gone
  return *instance;
}

bool is_pinned(const void* data) {
  const std::scoped_lock lock(g_mutex);
  const auto* address = static_cast<const char*>(data);
  const auto after = pinned().upper_bound(address);
  return after != pinned().begin() && address < std::prev(after)->first + std::prev(after)->second;
}

bool is_pageable(const void* data) { return !is_device_memory(data) && !is_pinned(data); }

/// `rows` rows of `width` bytes.
struct Rectangle {
  char* data;
  std::size_t pitch;
};
void copy_rows(Rectangle to, Rectangle from, std::size_t width, std::size_t rows) {
  for (std::size_t row = 0; row < rows; ++row)
    std::memcpy(to.data + row * to.pitch, from.data + row * from.pitch, width);
}

cudaError_t copy(Rectangle to, Rectangle from, std::size_t width, std::size_t rows, cudaStream_t stream) {
  if (is_pageable(from.data)) {
    auto staged = std::make_shared<std::vector<char>>(width * rows);
    copy_rows({staged->data(), width}, from, width, rows);
    enqueue(stream, [=] { copy_rows(to, {staged->data(), width}, width, rows); });
  } else {
    enqueue(stream, [=] { copy_rows(to, from, width, rows); });
  }
  if (is_pageable(to.data)) finish(stream);
  return cudaSuccess;
}

char* bytes_of(const void* data) { return static_cast<char*>(const_cast<void*>(data)); }

}  // namespace

cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = 13000;
  return cudaSuccess;
}
cudaError_t cudaDriverGetVersion(int* version) {
  *version = 13000;
  return cudaSuccess;
}
cudaError_t cudaGetDeviceCount(int* count) {
  *count = 1;
  return cudaSuccess;
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int) {
  *properties = {"emulated", 9, 0, 132, kDeviceMemoryBytes, 0, 1, 0};
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

cudaError_t cudaMemGetInfo(std::size_t* free, std::size_t* total) {
  *total = kDeviceMemoryBytes;
  *free = kDeviceMemoryBytes - device_memory_taken();
  return cudaSuccess;
}
cudaError_t cudaMalloc(void** data, std::size_t bytes) {
  *data = take_device_memory(bytes);
  return *data == nullptr ? cudaErrorMemoryAllocation : cudaSuccess;
}
cudaError_t cudaFree(void* data) {
  wait_for_all();
  give_device_memory(data);
  return cudaSuccess;
}
cudaError_t cudaMallocHost(void** data, std::size_t bytes) {
  if (posix_memalign(data, 256, bytes) != 0) return cudaErrorMemoryAllocation;
  const std::scoped_lock lock(g_mutex);
  pinned()[static_cast<const char*>(*data)] = bytes;
  return cudaSuccess;
}
cudaError_t cudaFreeHost(void* data) {
  wait_for_all();
  {
    const std::scoped_lock lock(g_mutex);
    pinned().erase(static_cast<const char*>(data));
  }
  std::free(data);
  return cudaSuccess;
}
cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes, const void* data) {
  *attributes = {is_device_memory(data) ? cudaMemoryTypeDevice
                 : is_pinned(data)      ? cudaMemoryTypeHost
                                        : cudaMemoryTypeUnregistered,
                 0};
  return cudaSuccess;
}
cudaError_t cudaMemset(void* data, int value, std::size_t bytes) {
  return cudaMemsetAsync(data, value, bytes, nullptr);
}
cudaError_t cudaMemsetAsync(void* data, int value, std::size_t bytes, cudaStream_t stream) {
  enqueue(stream, [=] { std::memset(data, value, bytes); });
  return cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind, cudaStream_t stream) {
  return copy({bytes_of(to), bytes}, {bytes_of(from), bytes}, bytes, 1, stream);
}
cudaError_t cudaMemcpy2DAsync(void* to, std::size_t to_pitch, const void* from, std::size_t from_pitch,
                              std::size_t width, std::size_t height, cudaMemcpyKind, cudaStream_t stream) {
  if (width > to_pitch || width > from_pitch) return cudaErrorInvalidValue;
  return copy({bytes_of(to), to_pitch}, {bytes_of(from), from_pitch}, width, height, stream);
}

}  // namespace emulator
