// Memory: Storage owns bytes on one device; Arena cuts storage into views and remembers the peak.
//
// Host memory is aligned to 64 bytes (a cache line, an AVX-512 register) and zero when fresh. Device memory comes from
// the CUDA runtime and is zeroed too. Nothing here is thread-safe; an owner belongs to one thread at a time.
//
// How much memory code takes is found by running it dry: on a Device whose `dry` is set, Storage and Arena count what
// they are asked for and have none, so that a plan is what the code itself asks for and no second list of it. Views of
// a dry run have places of their own, at which nothing is.
#pragma once

#include <cstdint>
#include <vector>

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
  /// `dry` as Device has it.
  static Storage pinned(std::int64_t bytes, DryMemory* dry = nullptr);

  void* data() const { return data_; }
  std::int64_t bytes() const { return bytes_; }
  Device device() const { return device_; }

 private:
  void* data_ = nullptr;
  std::int64_t bytes_ = 0;
  Device device_;
  bool pinned_ = false;
};

/// What all live Storage objects of this process hold on `kind`; dry ones hold nothing.
MemoryUse memory_use(DeviceKind kind);

/// Hands out views of storage from front to back. `reset` takes everything back at once; `Scope` takes back what was
/// handed out since it began. Fresh views are not zeroed.
class Arena {
 public:
  Arena() = default;
  /// Of one Storage, and never more. In a dry run there is always more, and `peak_bytes` says how much was needed.
  Arena(std::int64_t capacity_bytes, Device device);
  /// For what cannot be planned: what does not fit is cut from further storage, and `reset` makes one of all, with an
  /// eighth to spare. It never shrinks.
  static Arena growing(Device device);

  /// A contiguous view aligned to 64 bytes; throws Error(bug) naming both sizes when the arena is too small.
  BasicTensorView<void> take(DType dtype, const Shape& shape);
  /// Takes `bytes` and gives them back: what an op does in a dry run.
  void claim(std::int64_t bytes);
  void reset();
  std::int64_t used_bytes() const { return used_; }
  std::int64_t peak_bytes() const { return peak_; }
  /// In a dry run what was needed, if that is more.
  std::int64_t capacity_bytes() const;
  /// What may still be taken.
  std::int64_t left_bytes() const;
  Device device() const { return device_; }

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
  char* place_for(std::int64_t bytes);
  char* grow_for(std::int64_t bytes);

  Device device_;
  bool grows_ = false;
  std::vector<Storage> storages_;  ///< one behind the other in what `used_` counts; a single one unless it grows
  std::int64_t used_ = 0;
  std::int64_t peak_ = 0;
};

}  // namespace shoestring
