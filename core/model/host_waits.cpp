#include "core/model/host_waits.h"

#include <fmt/core.h>

namespace shoestring {
namespace {

constexpr std::array<const char*, kWaitCauses> kNames = {"losses and the gradient's norm", "the rows of experts",
                                                         "rows that cross to other ranks",
                                                         "optimizer state in the host's memory"};

}  // namespace

HostWaits& HostWaits::operator+=(const HostWaits& more) {
  for (std::size_t i = 0; i < of.size(); ++i) of[i] += more.of[i];
  return *this;
}

void wait_for(const Stream& stream, WaitCause cause, HostWaits* waits) {
  stream.synchronize();
  if (waits != nullptr && stream.device().kind != DeviceKind::cpu) ++(*waits)[cause];
}

std::string waits_text(const HostWaits& waits, std::int64_t steps) {
  std::string text;
  for (std::size_t i = 0; i < waits.of.size() && steps > 0; ++i) {
    if (waits.of[i] == 0) continue;
    const double each = static_cast<double>(waits.of[i]) / static_cast<double>(steps);
    text += fmt::format("{}{:.4g}{} for {}", text.empty() ? "" : ", ", each, text.empty() ? " a step" : "", kNames[i]);
  }
  return text;
}

}  // namespace shoestring
