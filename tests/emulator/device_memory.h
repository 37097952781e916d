// The memory of the emulated device: pages of this process that only device code may touch. While host code runs they
// are closed, and a look at them ends the process with a line that says at what, and from where.
#pragma once

#include <cstddef>

namespace emulator {

/// `bytes` bytes of the device, aligned to 256; nullptr when its memory is used up. A closed page lies behind them, and
/// AddressSanitizer knows what is nobody's.
void* take_device_memory(std::size_t bytes);
void give_device_memory(void* data);
/// Whether `data` lies in an allocation of the device.
bool is_device_memory(const void* data);
/// Bytes of it that are held.
std::size_t device_memory_taken();
inline constexpr std::size_t kDeviceMemoryBytes = std::size_t{16} << 30;

/// Opens the memory while it lives. May nest.
class DeviceAccess {
 public:
  DeviceAccess();
  ~DeviceAccess();
  DeviceAccess(const DeviceAccess&) = delete;
  DeviceAccess& operator=(const DeviceAccess&) = delete;
};

}  // namespace emulator
