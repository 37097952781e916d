// Where work runs: a device, and a stream that orders work on it.
//
// Every op takes a Stream and enqueues on it. A CPU stream runs an op before the call returns, on the workers it
// carries; a CUDA stream returns at once. Only `synchronize` waits. No op synchronises a device by itself.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>

namespace shoestring {

class Workers;

enum class DeviceKind : std::uint8_t { cpu, cuda };

/// Bytes held at present, and the most that ever were.
struct MemoryUse {
  std::int64_t now_bytes = 0;
  std::int64_t peak_bytes = 0;
};

/// What a dry run would hold, by DeviceKind: host memory and the device's.
struct DryMemory {
  std::array<MemoryUse, 2> by_kind;
  MemoryUse& of(DeviceKind kind) { return by_kind[static_cast<std::size_t>(kind)]; }
};

struct Device {
  DeviceKind kind = DeviceKind::cpu;
  int index = 0;
  /// Not null: a device of a dry run, which need not exist. Code runs on it as on a real one of its kind, and asks for
  /// the same memory; that is counted here and never there, and an op does nothing but claim its scratch.
  DryMemory* dry = nullptr;
  bool operator==(const Device&) const = default;

  /// Whether the host may look at what lies there.
  bool readable() const { return kind == DeviceKind::cpu && dry == nullptr; }
};

std::string to_string(Device device);  // "cpu", "cuda:0"

/// CUDA devices this process can use; 0 without a driver or in a build without CUDA. Never throws.
int cuda_device_count();

/// What a CUDA device says of itself; throws Error(missing_input) where it does not exist.
struct DeviceProperties {
  std::string name;
  int capability = 0;  ///< 90 for sm_90
  int multiprocessors = 0;
  std::int64_t memory_bytes = 0;
  double clock_hz = 0;                 ///< the highest it may run at
  double memory_bytes_per_second = 0;  ///< from memory clock and bus width
};
DeviceProperties device_properties(Device device);

/// Orders work on one device. Move-only.
class Stream {
 public:
  /// A CPU stream on `workers`, which must outlive it.
  explicit Stream(Workers& workers);
  /// A CUDA stream; throws Error(missing_input) where the device does not exist.
  explicit Stream(Device device);
  /// Of a dry run, as if on `workers` workers where `device` is a CPU.
  Stream(Device device, int workers);
  ~Stream();
  Stream(Stream&&) noexcept;
  Stream& operator=(Stream&&) noexcept;

  Device device() const { return device_; }
  /// The threads a CPU op runs on; throws Error(bug) on a CUDA stream.
  Workers& workers() const;
  /// How many those are; 1 on a CUDA stream.
  int worker_count() const;
  /// Whether this is a dry run.
  bool dry() const { return device_.dry != nullptr; }
  /// cudaStream_t of a CUDA stream, nullptr on a CPU.
  void* native() const { return native_; }
  /// Waits until everything enqueued so far is done.
  void synchronize() const;

 private:
  Device device_;
  Workers* workers_ = nullptr;
  void* native_ = nullptr;
  int dry_workers_ = 0;
};

}  // namespace shoestring
