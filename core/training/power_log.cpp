#include "core/training/power_log.h"

#include <fmt/core.h>

#include <algorithm>

namespace shoestring {
namespace {

constexpr double kSecondsBetween = 1;

}  // namespace

void PowerLog::Mean::add(double value) {
  least = count == 0 ? value : std::min(least, value);
  most = count == 0 ? value : std::max(most, value);
  sum += value;
  ++count;
}

void PowerLog::look(double seconds) {
  if (readings_ > 0 && seconds - last_seconds_ < kSecondsBetween) return;
  const DeviceReading reading = read_();
  if (readings_++ == 0) first_seconds_ = seconds;
  last_seconds_ = seconds;
  if (reading.joules) {
    if (!first_joules_) first_joules_ = reading.joules;
    last_joules_ = reading.joules;
  }
  if (reading.watts) watts_.add(*reading.watts);
  if (reading.clock_mhz) clock_.add(*reading.clock_mhz);
  const std::vector<std::string_view> reasons = slowing_reasons(reading.slowed_by);
  slowed_ += reasons.empty() ? 0 : 1;
  for (const std::string_view reason : reasons) ++reasons_[reason];
}

std::string PowerLog::text() const {
  const double seconds = last_seconds_ - first_seconds_;
  if (readings_ < 2 || seconds <= 0) return {};
  std::string text;
  const auto add = [&](const std::string& part) { text += (text.empty() ? "" : "; ") + part; };
  if (first_joules_ && *last_joules_ > *first_joules_) {
    const double joules = *last_joules_ - *first_joules_;
    add(fmt::format("{:.4g} kWh in {:.0f} s, {:.0f} W in the mean", joules / 3.6e6, seconds, joules / seconds));
  } else if (watts_.count > 0) {
    add(fmt::format("{:.0f} W in the mean of {} readings", watts_.value(), watts_.count));
  }
  if (clock_.count > 0) {
    add(fmt::format("multiprocessors at {:.0f} MHz in the mean, {:.0f} to {:.0f}", clock_.value(), clock_.least,
                    clock_.most));
  }
  if (slowed_ > 0) {
    std::string list;
    for (const auto& [reason, count] : reasons_) {
      list += fmt::format("{}{} {:.0f}%", list.empty() ? "" : ", ", reason, 100.0 * count / readings_);
    }
    add(fmt::format("slowed down in {:.0f}% of {} readings ({})", 100.0 * slowed_ / readings_, readings_, list));
  }
  return text.empty() ? text : "measured by the device (NVML): " + text;
}

}  // namespace shoestring
