#include "core/training/guard.h"

#include <cmath>

#include "kernels/base/check.h"

namespace shoestring {
namespace {

// The bound a new value must not exceed, or infinity while there is too little history.
double bound(const std::deque<double>& window, const GuardSpec& spec) {
  const auto count = static_cast<double>(window.size());
  if (spec.spike_sigmas <= 0 || count < spec.window / 2.0) return INFINITY;
  double mean = 0;
  for (const double value : window) mean += value / count;
  double variance = 0;
  for (const double value : window) variance += (value - mean) * (value - mean) / count;
  return mean + spec.spike_sigmas * std::sqrt(variance);
}

void remember(std::deque<double>& window, double value, int limit) {
  window.push_back(value);
  while (window.size() > static_cast<std::size_t>(limit)) window.pop_front();
}

}  // namespace

std::string Guard::judge(std::int64_t step, double loss, double gradient_norm) {
  std::string reason;
  const bool finite = std::isfinite(loss) && std::isfinite(gradient_norm);
  if (!finite) {
    reason = fmt::format("loss {} or gradient norm {} is not finite", loss, gradient_norm);
  } else if (const double limit = bound(state_.losses, spec_); loss > limit) {
    reason = fmt::format("loss {:.4f} exceeds {:.4f}, the mean and {} sigmas of recent steps", loss, limit,
                         spec_.spike_sigmas);
  } else if (const double norm_limit = bound(state_.norms, spec_); gradient_norm > norm_limit) {
    reason = fmt::format("gradient norm {:.4f} exceeds {:.4f}, the mean and {} sigmas of recent steps", gradient_norm,
                         norm_limit, spec_.spike_sigmas);
  }
  if (reason.empty()) {
    remember(state_.losses, loss, spec_.window);
    remember(state_.norms, gradient_norm, spec_.window);
    state_.skipped_in_row = 0;
    return {};
  }
  ++state_.skipped;
  if (++state_.skipped_in_row >= spec_.skip_limit) {
    fail(finite ? ExitCode::no_progress : ExitCode::non_finite,
         "step {}: {}; {} steps in a row were skipped (guard.skip_limit). The last checkpoint is sound; lower the "
         "learning rate or inspect the data before restarting",
         step, reason, state_.skipped_in_row);
  }
  return reason;
}

void Guard::forget() {
  state_.losses.clear();
  state_.norms.clear();
}

}  // namespace shoestring
