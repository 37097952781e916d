// A clock that stands still until a test moves it.
#pragma once

#include "core/budget/meter.h"

namespace shoestring::testing {

class HandClock : public Clock {
 public:
  double now = 100;   ///< monotonic
  double start = 98;  ///< of the process
  double unix_offset = 1.7e9;

  double monotonic_seconds() const override { return now; }
  double unix_seconds() const override { return unix_offset + now; }
  double process_start() const override { return start; }
};

}  // namespace shoestring::testing
