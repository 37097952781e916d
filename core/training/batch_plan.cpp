#include "core/training/batch_plan.h"

#include <algorithm>

namespace shoestring {

std::int64_t BatchPlan::global_batch(std::int64_t samples) const {
  if (phase_.batch_ramp_from <= 0 || phase_.batch_ramp_tokens <= 0) return phase_.global_batch;
  const double way =
      std::min(1.0, static_cast<double>(samples * phase_.sequence) / static_cast<double>(phase_.batch_ramp_tokens));
  if (way >= 1) return phase_.global_batch;  // whether or not it is whole micro-batches per group
  const double wanted = static_cast<double>(phase_.batch_ramp_from) +
                        way * static_cast<double>(phase_.global_batch - phase_.batch_ramp_from);
  const std::int64_t unit = phase_.micro_batch * groups_;
  const std::int64_t whole = static_cast<std::int64_t>(wanted) / unit * unit;
  return std::clamp(whole, std::min(unit, phase_.global_batch), phase_.global_batch);
}

void RankOrder::enter() {
  group_ = plan_.group(samples_, round_, rank_);
  at_ = group_.begin;
}

SampleRange RankOrder::next() {
  while (at_ == group_.end) {
    if (++round_ == plan_.rounds()) {
      samples_ += plan_.global_batch(samples_);
      round_ = 0;
    }
    enter();
  }
  return plan_.range(samples_, at_++);
}

}  // namespace shoestring
