#include "kernels/base/memory.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <numeric>
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
constexpr std::int64_t kLeastGrowth = 64;      // so that what is taken of nothing is not without memory
constexpr std::uintptr_t kDryPlace = 1 << 16;  // where all memory of dry runs begins

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

void count(MemoryUse& use, std::int64_t change) {
  use.now_bytes += change;
  use.peak_bytes = std::max(use.peak_bytes, use.now_bytes);
}

void* dry_place() { return reinterpret_cast<void*>(kDryPlace); }

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
  if (device.dry != nullptr) {
    data_ = dry_place();
    count(device.dry->of(device.kind), bytes);
    return;
  }
  data_ = device.kind == DeviceKind::cpu ? allocate_host(bytes) : allocate_cuda(bytes, device);
  if (data_ == nullptr) {
    fail(ExitCode::io, "out of memory: {} bytes on {}{}", bytes, to_string(device),
         device.kind == DeviceKind::cpu ? "; " + memory_limits() : "");
  }
  count(device.kind, bytes);
}

Storage Storage::pinned(std::int64_t bytes, DryMemory* dry) {
  if (dry != nullptr) return Storage(bytes, {.dry = dry});
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
  if (device_.dry != nullptr) {
    count(device_.dry->of(device_.kind), -bytes_);
    return;
  }
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

Arena::Arena(std::int64_t capacity_bytes, Device device) : device_(device) {
  storages_.emplace_back(capacity_bytes, device);
}

Arena Arena::growing(Device device) {
  Arena arena;
  arena.device_ = device;
  arena.grows_ = true;
  return arena;
}

std::int64_t Arena::capacity_bytes() const {
  const std::int64_t bytes =
      std::accumulate(storages_.begin(), storages_.end(), std::int64_t{0},
                      [](std::int64_t sum, const Storage& storage) { return sum + storage.bytes(); });
  return device_.dry != nullptr ? std::max(bytes, peak_) : bytes;
}

std::int64_t Arena::left_bytes() const {
  const bool any = grows_ || device_.dry != nullptr;
  return any ? std::numeric_limits<std::int64_t>::max() : capacity_bytes() - used_;
}

/// Nothing where there is no room; `used_` then stands behind what was found.
char* Arena::place_for(std::int64_t bytes) {
  std::int64_t begin = 0;
  for (const Storage& storage : storages_) {
    const std::int64_t at = std::max(used_, begin);
    if (at + bytes <= begin + storage.bytes() && storage.data() != nullptr) {
      used_ = at + bytes;
      return static_cast<char*>(storage.data()) + (at - begin);
    }
    begin += storage.bytes();
  }
  return nullptr;
}

// Behind everything: what stands behind `used_` is free, but too small.
char* Arena::grow_for(std::int64_t bytes) {
  used_ = capacity_bytes();
  storages_.emplace_back(std::max(bytes, kLeastGrowth), device_);
  return place_for(bytes);
}

TensorView Arena::take(DType dtype, const Shape& shape) {
  const std::int64_t bytes = footprint(shape.elements() * size_bytes(dtype));
  char* data = nullptr;
  if (device_.dry != nullptr) {
    data = static_cast<char*>(dry_place()) + used_;
    used_ += bytes;
  } else if (grows_) {
    data = place_for(bytes);
    if (data == nullptr) data = grow_for(bytes);
  } else {
    check(used_ + bytes <= capacity_bytes(), "an arena of {} bytes with {} in use cannot hold {} more ({} {})",
          capacity_bytes(), used_, bytes, name(dtype), shape);
    data = storages_.empty() ? nullptr : static_cast<char*>(storages_.front().data()) + used_;
    used_ += bytes;
  }
  peak_ = std::max(peak_, used_);
  return view_of(data, dtype, shape, device_);
}

void Arena::claim(std::int64_t bytes) { peak_ = std::max(peak_, used_ + footprint(bytes)); }

void Arena::reset() {
  used_ = 0;
  if (storages_.size() < 2) return;
  const std::int64_t bytes = footprint(peak_ + peak_ / 8);
  storages_.clear();  // not both at once
  storages_.emplace_back(bytes, device_);
}

}  // namespace shoestring
