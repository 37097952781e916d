// What a device took and how fast it could be, over an attempt: readings of it now and then, summed up in a line.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <string_view>

#include "kernels/base/nvml.h"

namespace shoestring {

class PowerLog {
 public:
  /// `read` looks at the device, at most once a second.
  explicit PowerLog(std::function<DeviceReading()> read) : read_(std::move(read)) {}

  /// It is `seconds` on a clock that never jumps.
  void look(double seconds);

  /// "measured by the device (NVML): 0.0123 kWh in 110 s, 402 W in the mean; multiprocessors at 1740 MHz in the mean,
  /// 1410 to 1980; slowed down in 12% of 110 readings (power cap 12%)"; empty where two readings told nothing.
  std::string text() const;

 private:
  struct Mean {
    double sum = 0;
    double least = 0;
    double most = 0;
    int count = 0;
    void add(double value);
    double value() const { return count > 0 ? sum / count : 0; }
  };

  std::function<DeviceReading()> read_;
  int readings_ = 0;
  double first_seconds_ = 0;
  double last_seconds_ = 0;
  std::optional<double> first_joules_;
  std::optional<double> last_joules_;
  Mean watts_;
  Mean clock_;
  int slowed_ = 0;
  std::map<std::string_view, int> reasons_;  // readings that gave each
};

}  // namespace shoestring
