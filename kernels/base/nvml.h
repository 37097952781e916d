// What a device says of itself while it works: energy, power, clocks, and why it slows down. NVIDIA's management
// library comes with the driver; it is loaded when it is asked for, and where it is not there nothing is measured, and
// why is known.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace shoestring {

/// One look at a device; what it does not tell is not there.
struct DeviceReading {
  std::optional<double> joules;  ///< since the driver was loaded (Volta and later)
  std::optional<double> watts;   ///< now
  std::optional<int> clock_mhz;  ///< of the multiprocessors, now
  std::uint64_t slowed_by = 0;   ///< reasons, as bits of NVML
};
/// "power cap", "heat": reasons for which a clock is lower than the work would have it; idle clocks are none.
std::vector<std::string_view> slowing_reasons(std::uint64_t slowed_by);

class DeviceMonitor {
 public:
  /// Of the device with this PCI bus id ("00000000:01:00.0").
  explicit DeviceMonitor(const std::string& pci, const char* library = "libnvidia-ml.so.1");
  ~DeviceMonitor();
  DeviceMonitor(const DeviceMonitor&) = delete;
  DeviceMonitor& operator=(const DeviceMonitor&) = delete;

  /// Why nothing is measured; empty where something is.
  const std::string& fault() const { return fault_; }
  /// Never throws; empty where nothing is measured. Takes well under a millisecond.
  DeviceReading read() const;

 private:
  struct Library;
  std::unique_ptr<Library> library_;
  void* device_ = nullptr;
  std::string fault_;
};

}  // namespace shoestring
