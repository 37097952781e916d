// A feed whose batches are made from sample numbers, and a clock that moves when told, for tests of a training step.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "core/budget/meter.h"
#include "core/training/feed.h"
#include "kernels/base/check.h"
#include "tests/core/model/small_models.h"

namespace shoestring::testing {

/// Stands still unless somebody moves it.
class HeldClock : public Clock {
 public:
  double monotonic_seconds() const override { return seconds; }
  double unix_seconds() const override { return seconds; }
  double process_start() const override { return 0; }
  double seconds = 0;
};

/// Sample numbers become tokens; each fetch takes a while.
class MadeFeed : public Feed {
 public:
  static constexpr double kFetchSeconds = 4;

  MadeFeed(std::int64_t vocabulary, std::int64_t sequence, HeldClock& clock)
      : vocabulary_(vocabulary), sequence_(sequence), clock_(clock) {}
  BatchView next(SampleRange samples) override {
    asked.push_back(samples.first);
    check(samples.first != fails_at, "no sample {}", samples.first);
    clock_.seconds += kFetchSeconds;
    const std::int64_t first = samples.first == damaged ? samples.first - samples.count : samples.first;
    batch_.emplace(vocabulary_, samples.count, sequence_, static_cast<std::uint64_t>(100 + first));
    if (masks) masks(first, *batch_);
    return batch_->view();
  }
  std::vector<std::int64_t> asked;
  std::int64_t damaged = -1;  ///< instead of these samples, those before
  std::int64_t fails_at = -1;
  std::function<void(std::int64_t first_sample, SmallBatch& batch)> masks;  ///< changes targets

 private:
  std::int64_t vocabulary_;
  std::int64_t sequence_;
  HeldClock& clock_;
  std::optional<SmallBatch> batch_;
};

}  // namespace shoestring::testing
