#include "core/training/guard.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>

namespace shoestring {
namespace {

// Deviations below this share of the mean are no measure of what is usual: values that hardly vary have no outliers.
constexpr double kLeastSpread = 1e-3;

// The bound that a usual value does not exceed, or infinity while there is too little history.
double bound(const std::deque<double>& window, const GuardSpec& spec) {
  const auto count = static_cast<double>(window.size());
  if (count < spec.window / 2.0) return INFINITY;
  double mean = 0;
  for (const double value : window) mean += value / count;
  double variance = 0;
  for (const double value : window) variance += (value - mean) * (value - mean) / count;
  return mean + spec.spike_sigmas * std::max(std::sqrt(variance), kLeastSpread * std::abs(mean));
}

void remember(std::deque<double>& window, double value, int limit) {
  window.push_back(value);
  while (window.size() > static_cast<std::size_t>(limit)) window.pop_front();
}

std::string stands_out(const char* what, double value, double bound, double sigmas) {
  return fmt::format("{} {:.4g} exceeds {:.4g}, the mean and {} sigmas of recent steps", what, value, bound, sigmas);
}

}  // namespace

Judgement Guard::judge(double loss, double gradient_norm, bool may_go_back) {
  const double loss_bound = bound(state_.losses, spec_);
  const double norm_bound = bound(state_.norms, spec_);
  const bool finite = std::isfinite(loss) && std::isfinite(gradient_norm);
  state_.broken_in_row = finite ? 0 : state_.broken_in_row + 1;
  Judgement judgement;
  judgement.norm_limit = std::min(norm_bound, clip_ > 0 ? clip_ : INFINITY);
  if (!finite) {
    judgement.why = fmt::format("loss {} or gradient norm {} is not finite", loss, gradient_norm);
  } else if (loss > loss_bound) {
    judgement.why = stands_out("loss", loss, loss_bound, spec_.spike_sigmas);
  } else if (gradient_norm > norm_bound) {
    judgement.why = stands_out("gradient norm", gradient_norm, norm_bound, spec_.spike_sigmas);
  }
  if (finite) {
    remember(state_.losses, std::min(loss, loss_bound), spec_.window);
    remember(state_.norms, std::min(gradient_norm, norm_bound), spec_.window);
  }
  if (finite && loss <= loss_bound) {
    state_.strange_in_row = 0;
    state_.tried_return = false;
  } else {
    judgement.verdict = verdict_on_strange(finite, may_go_back);
  }
  if (judgement.verdict == StepVerdict::apply) {
    state_.skipped_in_row = 0;
    if (gradient_norm > judgement.norm_limit) ++state_.clipped;
  }
  return judgement;
}

StepVerdict Guard::verdict_on_strange(bool finite, bool may_go_back) {
  const bool again = ++state_.strange_in_row > 1;
  if (again && spec_.on_repeat == OnRepeat::go_back && may_go_back && !state_.tried_return) return StepVerdict::go_back;
  if (again && finite) return StepVerdict::apply;
  skip();
  return state_.skipped_in_row >= spec_.skip_limit ? StepVerdict::end : StepVerdict::skip;
}

void Guard::went_back(const GuardState& then) {
  state_.losses = then.losses;
  state_.norms = then.norms;
  state_.skipped_in_row = state_.broken_in_row = 0;
  state_.tried_return = true;
  ++state_.returns;
}

void Guard::stayed() {
  state_.tried_return = true;
  skip();
}

void Guard::skip() {
  ++state_.skipped_in_row;
  ++state_.skipped;
}

void Guard::forget() {
  state_.losses.clear();
  state_.norms.clear();
}

}  // namespace shoestring
