// The share of allotted time that ends up in steps which are kept: devices fail, a failure costs what came after the
// last checkpoint and a restart, checkpoints cost their own time.
#pragma once

#include "core/budget/hardware.h"

namespace shoestring {

/// Device-hours between failures that end a job: Llama 3.1 405B saw 419 unexpected interruptions in 54 days on 16,384
/// H100 (arXiv 2407.21783, section 3.3.4).
inline constexpr double kDeviceHoursPerFailure = 16384.0 * 54 * 24 / 419;

struct GoodputQuestion {
  int devices = 1;
  double checkpoint_seconds = 0;           ///< that steps stand still for one
  double checkpoint_interval_seconds = 0;  ///< 0: none is written on the way
  double restart_seconds = 600;            ///< from a failure to the next step
  double device_hours_per_failure = kDeviceHoursPerFailure;
};

struct Goodput {
  double share = 1;        ///< of time in kept steps
  double checkpoints = 0;  ///< share of time
  double lost = 0;         ///< share of time: repeated steps and restarts
  double failures_a_day = 0;
};

/// With no checkpoint on the way, half a mean time to failure is lost each time: the share falls fast, as it should.
Goodput goodput_of(const GoodputQuestion& question);

}  // namespace shoestring
