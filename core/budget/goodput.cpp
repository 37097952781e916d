#include "core/budget/goodput.h"

#include <algorithm>

namespace shoestring {

Goodput goodput_of(const GoodputQuestion& question) {
  constexpr double kSecondsPerHour = 3600;
  constexpr double kSecondsPerDay = 86400;
  const double between = question.device_hours_per_failure * kSecondsPerHour / std::max(1, question.devices);
  const double interval = question.checkpoint_interval_seconds;
  const double writing = interval > 0 ? question.checkpoint_seconds / interval : 0;
  const double repeated = (interval > 0 ? std::min(interval, between) : between) / 2;
  const double losing = (repeated + question.restart_seconds) / between;
  Goodput goodput;
  goodput.share = 1 / (1 + writing + losing);
  goodput.checkpoints = writing * goodput.share;
  goodput.lost = losing * goodput.share;
  goodput.failures_a_day = kSecondsPerDay / between;
  return goodput;
}

}  // namespace shoestring
