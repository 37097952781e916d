#include "kernels/base/nvml.h"

#include <dlfcn.h>
#include <fmt/core.h>

#include <array>
#include <type_traits>

namespace shoestring {
namespace {

// Of nvml.h (NVML API reference), whose types are these; the header comes with the CUDA toolkit, which a build may
// lack.
constexpr int kSuccess = 0;
constexpr int kMultiprocessorClock = 1;  // NVML_CLOCK_SM

struct Reason {
  std::uint64_t bit;  // nvmlClocksEventReasons
  std::string_view name;
};
constexpr std::array kReasons = std::to_array<Reason>({
    {0x4, "power cap"},
    {0x8, "hardware slowdown"},
    {0x10, "clocks in step with other devices"},
    {0x20, "heat"},
    {0x40, "heat, by the hardware"},
    {0x80, "power brake"},
});

}  // namespace

std::vector<std::string_view> slowing_reasons(std::uint64_t slowed_by) {
  std::vector<std::string_view> names;
  for (const Reason& reason : kReasons) {
    if ((slowed_by & reason.bit) != 0) names.push_back(reason.name);
  }
  return names;
}

struct DeviceMonitor::Library {
  void* file = nullptr;
  int (*init)() = nullptr;
  int (*shutdown)() = nullptr;
  const char* (*error_string)(int) = nullptr;
  int (*handle)(const char*, void**) = nullptr;
  int (*energy)(void*, unsigned long long*) = nullptr;
  int (*power)(void*, unsigned*) = nullptr;
  int (*clock)(void*, int, unsigned*) = nullptr;
  int (*reasons)(void*, unsigned long long*) = nullptr;
  bool initialised = false;

  ~Library() {
    if (initialised) shutdown();
    if (file != nullptr) dlclose(file);
  }
  template <class Function>
  bool find(Function& function, const char* name) {
    function = reinterpret_cast<Function>(dlsym(file, name));
    return function != nullptr;
  }
};

DeviceMonitor::DeviceMonitor(const std::string& pci, const char* library) : library_(std::make_unique<Library>()) {
  Library& lib = *library_;
  lib.file = dlopen(library, RTLD_NOW | RTLD_LOCAL);
  if (lib.file == nullptr) {
    fault_ = fmt::format("{} cannot be loaded", library);
    return;
  }
  if (!lib.find(lib.init, "nvmlInit_v2") || !lib.find(lib.shutdown, "nvmlShutdown") ||
      !lib.find(lib.error_string, "nvmlErrorString") || !lib.find(lib.handle, "nvmlDeviceGetHandleByPciBusId_v2")) {
    fault_ = fmt::format("{} lacks functions of NVML", library);
    return;
  }
  // What a device may be asked; an older library need not have all.
  lib.find(lib.energy, "nvmlDeviceGetTotalEnergyConsumption");
  lib.find(lib.power, "nvmlDeviceGetPowerUsage");
  lib.find(lib.clock, "nvmlDeviceGetClockInfo");
  if (!lib.find(lib.reasons, "nvmlDeviceGetCurrentClocksEventReasons")) {
    lib.find(lib.reasons, "nvmlDeviceGetCurrentClocksThrottleReasons");  // its name before driver 535
  }
  int status = lib.init();
  lib.initialised = status == kSuccess;
  if (status == kSuccess) status = lib.handle(pci.c_str(), &device_);
  if (status != kSuccess) fault_ = fmt::format("NVML does not know device {}: {}", pci, lib.error_string(status));
}

DeviceMonitor::~DeviceMonitor() = default;

DeviceReading DeviceMonitor::read() const {
  DeviceReading reading;
  if (!fault_.empty()) return reading;
  const Library& lib = *library_;
  unsigned long long wide = 0;
  unsigned narrow = 0;
  if (lib.energy != nullptr && lib.energy(device_, &wide) == kSuccess) {
    reading.joules = static_cast<double>(wide) * 1e-3;
  }
  if (lib.power != nullptr && lib.power(device_, &narrow) == kSuccess) reading.watts = narrow * 1e-3;
  if (lib.clock != nullptr && lib.clock(device_, kMultiprocessorClock, &narrow) == kSuccess) {
    reading.clock_mhz = static_cast<int>(narrow);
  }
  if (lib.reasons != nullptr && lib.reasons(device_, &wide) == kSuccess) reading.slowed_by = wide;
  return reading;
}

}  // namespace shoestring
