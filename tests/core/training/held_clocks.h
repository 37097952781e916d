// Clocks that a test holds in its hands.
#pragma once

#include <functional>
#include <utility>

#include "core/budget/meter.h"

namespace shoestring::testing {

/// Real time, to which each reading may add; at one reading of it something happens.
class EventfulClock : public Clock {
 public:
  EventfulClock(std::function<bool()> when, std::function<void()> what, double seconds_per_reading = 0)
      : when_(std::move(when)), what_(std::move(what)), seconds_per_reading_(seconds_per_reading) {}
  double monotonic_seconds() const override {
    if (!over_ && when_()) {
      over_ = true;
      what_();
    }
    added_ += seconds_per_reading_;
    return system_clock().monotonic_seconds() + added_;
  }
  double unix_seconds() const override { return system_clock().unix_seconds(); }
  double process_start() const override { return system_clock().process_start(); }

 private:
  std::function<bool()> when_;
  std::function<void()> what_;
  double seconds_per_reading_;
  mutable double added_ = 0;
  mutable bool over_ = false;
};

/// Every reading takes a while: time without waiting, the same in every run.
class TickingClock : public Clock {
 public:
  double monotonic_seconds() const override { return seconds_ += 0.001; }
  double unix_seconds() const override { return seconds_; }
  double process_start() const override { return 0; }

 private:
  mutable double seconds_ = 0;
};

}  // namespace shoestring::testing
