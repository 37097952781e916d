#include "kernels/base/memory.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <utility>

#include <sys/mman.h>

#include "kernels/base/check.h"
#include "kernels/base/limits.h"
#include "kernels/base/tensor.h"

#if SHOESTRING_CUDA
#include "kernels/base/cuda_check.h"
#endif

namespace shoestring {
namespace {

constexpr std::int64_t kMapFrom = std::int64_t{1} << 20;  // from 1 MiB on, pages come from the kernel: zero, and huge
constexpr std::size_t kAlignment = 64;

struct Count {
  std::atomic<std::int64_t> now{0};
  std::atomic<std::int64_t> peak{0};
};
std::array<Count, 2> g_use;  // by DeviceKind

void count(DeviceKind kind, std::int64_t change) {
  Count& use = g_use[static_cast<std::size_t>(kind)];
  const std::int64_t now = use.now.fetch_add(change) + change;
  std::int64_t peak = use.peak.load();
  while (now > peak && !use.peak.compare_exchange_weak(peak, now)) {
  }
}

void* allocate_host(std::int64_t bytes) {
  const auto size = static_cast<std::size_t>(bytes);
  if (bytes >= kMapFrom) {
    void* data = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (data == MAP_FAILED) return nullptr;
    madvise(data, size, MADV_HUGEPAGE);  // advice: a kernel without huge pages ignores it
    return data;
  }
  void* data = std::aligned_alloc(kAlignment, (size + kAlignment - 1) / kAlignment * kAlignment);
  if (data != nullptr) std::memset(data, 0, size);
  return data;
}

void* allocate_cuda([[maybe_unused]] std::int64_t bytes, [[maybe_unused]] Device device) {
#if SHOESTRING_CUDA
  void* data = nullptr;
  cuda_check(cudaSetDevice(device.index), "cudaSetDevice");
  cuda_check(cudaMalloc(&data, static_cast<std::size_t>(bytes)), "cudaMalloc");
  cuda_check(cudaMemset(data, 0, static_cast<std::size_t>(bytes)), "cudaMemset");
  // It runs in stream 0, which the streams of ours do not wait for.
  cuda_check(cudaStreamSynchronize(nullptr), "cudaStreamSynchronize");
  return data;
#else
  fail(ExitCode::missing_input, "this build has no CUDA, so it cannot hold memory on {}", to_string(device));
#endif
}

}  // namespace

Storage::Storage(std::int64_t bytes, Device device) : bytes_(bytes), device_(device) {
  check(bytes >= 0, "a storage of {} bytes", bytes);
  if (bytes == 0) return;
  data_ = device.kind == DeviceKind::cpu ? allocate_host(bytes) : allocate_cuda(bytes, device);
  if (data_ == nullptr) {
    fail(ExitCode::io, "out of memory: {} bytes on {}{}", bytes, to_string(device),
         device.kind == DeviceKind::cpu ? "; " + memory_limits() : "");
  }
  count(device.kind, bytes);
}

Storage Storage::pinned([[maybe_unused]] std::int64_t bytes) {
#if SHOESTRING_CUDA
  if (bytes > 0 && cuda_device_count() > 0) {
    Storage storage;
    cuda_check(cudaMallocHost(&storage.data_, static_cast<std::size_t>(bytes)), "cudaMallocHost");
    std::memset(storage.data_, 0, static_cast<std::size_t>(bytes));
    storage.bytes_ = bytes;
    storage.pinned_ = true;
    count(DeviceKind::cpu, bytes);
    return storage;
  }
#endif
  return Storage(bytes, {});
}

Storage::~Storage() {
  if (data_ == nullptr) return;
  count(device_.kind, -bytes_);
  if (pinned_) {
#if SHOESTRING_CUDA
    cudaFreeHost(data_);
#endif
  } else if (device_.kind == DeviceKind::cpu) {
    if (bytes_ >= kMapFrom) {
      munmap(data_, static_cast<std::size_t>(bytes_));
    } else {
      std::free(data_);
    }
  } else {
#if SHOESTRING_CUDA
    cudaFree(data_);
#endif
  }
}

Storage::Storage(Storage&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)),
      bytes_(std::exchange(other.bytes_, 0)),
      device_(other.device_),
      pinned_(other.pinned_) {}

Storage& Storage::operator=(Storage&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  std::swap(device_, other.device_);
  std::swap(pinned_, other.pinned_);
  return *this;
}

MemoryUse memory_use(DeviceKind kind) {
  const Count& use = g_use[static_cast<std::size_t>(kind)];
  return {use.now.load(), use.peak.load()};
}

TensorView Arena::take(DType dtype, const Shape& shape) {
  const std::int64_t bytes = footprint(shape.elements() * size_bytes(dtype));
  check(used_ + bytes <= capacity_bytes(), "an arena of {} bytes with {} in use cannot hold {} more ({} {})",
        capacity_bytes(), used_, bytes, name(dtype), shape.to_string());
  char* data = static_cast<char*>(storage_.data()) + used_;
  used_ += bytes;
  peak_ = std::max(peak_, used_);
  return view_of(data, dtype, shape, storage_.device());
}

}  // namespace shoestring
