#include "core/budget/step_seconds.h"

#include <algorithm>
#include <cmath>
#include <span>
#include <vector>

namespace shoestring {
namespace {

constexpr double kSlowShare = 0.9;
constexpr double kUnseen = 1.25;        // a bad moment may come that was not there yet
constexpr double kStretchShare = 0.05;  // of the remaining steps: those that may fall into a bad moment
constexpr double kLeastStretch = 3;
// The pace is that of half as many of the last steps as are to come, within these.
constexpr double kFewest = 4;
constexpr double kMost = 16;
constexpr int kLatest = 2;  // a bad moment that has begun shows in as many

double quantile_of(std::span<const double> values, double share) {
  if (values.empty()) return 0;
  std::vector<double> sorted(values.begin(), values.end());
  std::sort(sorted.begin(), sorted.end());
  return sorted[static_cast<std::size_t>(std::llround(share * static_cast<double>(sorted.size() - 1)))];
}

template <std::size_t kSize>
std::span<const double> filled(const std::array<double, kSize>& ring, std::int64_t count) {
  return {ring.data(), std::min(kSize, static_cast<std::size_t>(count))};
}

}  // namespace

void StepSeconds::add(double seconds, double tokens) {
  const auto at = static_cast<std::size_t>(count_ % kWindow);
  last_[at] = seconds;
  per_token_[at] = seconds / std::max(1.0, tokens);
  best_per_token_ = std::min(best_per_token_, per_token_[at]);
  if (count_ > 0) {
    const std::int64_t settled = count_ - 1;
    double& block = blocks_[static_cast<std::size_t>(settled / kBlock % kBlocks)];
    block = (settled % kBlock == 0 ? 0 : block) + seconds / kBlock;
  }
  ++count_;
}

double StepSeconds::quantile(const Window& of, double share) const { return quantile_of(filled(of, count_), share); }

double StepSeconds::slowdown() const {
  return measured() && best_per_token_ > 0 ? quantile(per_token_, 0.5) / best_per_token_ : 1;
}

double StepSeconds::mean_of_last(int steps) const {
  const std::int64_t settled = std::max<std::int64_t>(1, count_ - 1);
  const std::int64_t n = std::min<std::int64_t>({steps, settled, kWindow});
  double sum = 0;
  for (std::int64_t i = count_ - n; i < count_; ++i) sum += last_[static_cast<std::size_t>(i % kWindow)];
  return sum / static_cast<double>(n);
}

std::span<const double> StepSeconds::whole_blocks() const {
  return filled(blocks_, std::max<std::int64_t>(0, count_ - 1) / kBlock);
}

double StepSeconds::slow_stretch() const {
  const double slowest = std::max(kUnseen * mean_of_last(kWindow), quantile_of(whole_blocks(), kSlowShare));
  return whole_blocks().empty() ? slowest : std::max(slowest, mean_of_last(kBlock));
}

double StepSeconds::unevenness() const {
  const double quick = quantile_of(whole_blocks(), 1 - kSlowShare);
  return quick > 0 ? quantile_of(whole_blocks(), kSlowShare) / quick : 1;
}

double StepSeconds::expected_within(double seconds, double pause_seconds) const {
  const double guess = seconds / (mean_of_last(static_cast<int>(kMost)) + pause_seconds);
  const double pace = mean_of_last(static_cast<int>(std::clamp(guess / 2, kFewest, kMost)));
  return seconds / (pace + pause_seconds);
}

double StepSeconds::surely_within(double seconds, double pause_seconds) const {
  const double expected = expected_within(seconds, pause_seconds);
  const double stretch = std::max(kLeastStretch, kStretchShare * expected);
  const double slow = std::max(slow_stretch(), mean_of_last(kLatest)) + pause_seconds;
  if (seconds <= stretch * slow) return seconds / slow;
  return stretch + expected_within(seconds - stretch * slow, pause_seconds);
}

}  // namespace shoestring
