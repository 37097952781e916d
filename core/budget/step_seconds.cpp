#include "core/budget/step_seconds.h"

#include <algorithm>
#include <cmath>
#include <span>
#include <vector>

namespace shoestring {
namespace {

constexpr double kSlowShare = 0.9;
constexpr double kStretch = 32;   // steps that may fall into a bad moment
constexpr double kUnseen = 1.25;  // a bad moment may come that was not there yet

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
  // The means begin anew with the second step.
  const std::int64_t seen = std::max<std::int64_t>(1, count_);
  for (int scale = 0; scale < kScales; ++scale) {
    const auto over = static_cast<double>(std::min<std::int64_t>(seen, std::int64_t{kWindow} << scale));
    double& mean = means_[static_cast<std::size_t>(scale)];
    mean += (seconds - mean) / over;
  }
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

double StepSeconds::mean_of_next(double steps) const {
  int scale = 0;
  while (scale + 1 < kScales && static_cast<double>(std::int64_t{kWindow} << (scale + 1)) <= steps / 2) ++scale;
  return means_[static_cast<std::size_t>(scale)];
}

std::span<const double> StepSeconds::whole_blocks() const {
  return filled(blocks_, std::max<std::int64_t>(0, count_ - 1) / kBlock);
}

double StepSeconds::slow_stretch() const {
  const double slowest = std::max(kUnseen * means_.front(), quantile_of(whole_blocks(), kSlowShare));
  if (whole_blocks().empty()) return slowest;
  double newest = 0;
  for (std::int64_t i = count_ - kBlock; i < count_; ++i) newest += last_[static_cast<std::size_t>(i % kWindow)];
  return std::max(slowest, newest / kBlock);
}

double StepSeconds::unevenness() const {
  const double quick = quantile_of(whole_blocks(), 1 - kSlowShare);
  return quick > 0 ? quantile_of(whole_blocks(), kSlowShare) / quick : 1;
}

double StepSeconds::expected_within(double seconds, double pause_seconds) const {
  const double guess = seconds / (means_.front() + pause_seconds);
  return seconds / (mean_of_next(guess) + pause_seconds);
}

double StepSeconds::surely_within(double seconds, double pause_seconds) const {
  const double slow = slow_stretch() + pause_seconds;
  if (seconds <= kStretch * slow) return seconds / slow;
  return kStretch + expected_within(seconds - kStretch * slow, pause_seconds);
}

}  // namespace shoestring
