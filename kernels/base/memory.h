// Memory: Storage owns bytes on one device; Arena cuts one Storage into views and remembers the peak.
//
// Host memory is aligned to 64 bytes (a cache line, an AVX-512 register) and zero when fresh. Device memory comes from
// the CUDA runtime and is zeroed too. Nothing here is thread-safe; an owner belongs to one thread at a time.
#pragma once

#include <cstdint>

#include "kernels/base/device.h"
#include "kernels/base/dtype.h"

namespace shoestring {

class Shape;
template <class Data>
struct BasicTensorView;

/// Owns `bytes` bytes on `device`; move-only. Throws Error(io) naming the size when memory runs out.
class Storage {
 public:
  Storage() = default;
  Storage(std::int64_t bytes, Device device);
  ~Storage();
  Storage(Storage&& other) noexcept;
  Storage& operator=(Storage&& other) noexcept;
  Storage(const Storage&) = delete;
  Storage& operator=(const Storage&) = delete;

  /// Host memory that CUDA devices copy from and to without waiting; ordinary host memory where there is no device.
  static Storage pinned(std::int64_t bytes);

  void* data() const { return data_; }
  std::int64_t bytes() const { return bytes_; }
  Device device() const { return device_; }

 private:
  void* data_ = nullptr;
  std::int64_t bytes_ = 0;
  Device device_;
  bool pinned_ = false;
};

/// Bytes that all live Storage objects of this process hold on `kind`, and the most they ever held.
struct MemoryUse {
  std::int64_t now_bytes = 0;
  std::int64_t peak_bytes = 0;
};
MemoryUse memory_use(DeviceKind kind);

/// Hands out views of one Storage from front to back. `reset` takes everything back at once; `Scope` takes back what
/// was handed out since it began. Fresh views are not zeroed.
class Arena {
 public:
  Arena() = default;
  Arena(std::int64_t capacity_bytes, Device device) : storage_(capacity_bytes, device) {}

  /// A contiguous view aligned to 64 bytes; throws Error(bug) naming both sizes when the arena is too small.
  BasicTensorView<void> take(DType dtype, const Shape& shape);
  void reset() { used_ = 0; }
  std::int64_t used_bytes() const { return used_; }
  std::int64_t peak_bytes() const { return peak_; }
  std::int64_t capacity_bytes() const { return storage_.bytes(); }

  /// What a view of `bytes` costs in an arena: rounded up to the alignment.
  static std::int64_t footprint(std::int64_t bytes) { return (bytes + 63) / 64 * 64; }

  class Scope {
   public:
    explicit Scope(Arena& arena) : arena_(arena), mark_(arena.used_) {}
    ~Scope() { arena_.used_ = mark_; }
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    Arena& arena_;
    std::int64_t mark_;
  };

 private:
  Storage storage_;
  std::int64_t used_ = 0;
  std::int64_t peak_ = 0;
};

}  // namespace shoestring
