#include "core/optimizer/learning_rate.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <numbers>

namespace shoestring {
namespace {

double half_cosine(double way) { return 0.5 * (1.0 + std::cos(std::numbers::pi * std::clamp(way, 0.0, 1.0))); }

double deepseek_v3(double progress) {
  constexpr double kTotal = 14.8;  // trillion tokens
  if (progress < 10.0 / kTotal) return 1.0;
  if (progress < 14.3 / kTotal) return 0.1 + 0.9 * half_cosine((progress - 10.0 / kTotal) / (4.3 / kTotal));
  if (progress < 14.633 / kTotal) return 0.1;
  return 7.3 / 220.0;
}

double shape(const ScheduleSpec& spec, double progress) {
  switch (spec.kind) {
    case LearningRateKind::constant: return 1.0;
    case LearningRateKind::cosine: return spec.final_fraction + (1.0 - spec.final_fraction) * half_cosine(progress);
    case LearningRateKind::deepseek: return deepseek_v3(progress);
    case LearningRateKind::warmup_stable_decay: break;
  }
  const double begin = 1.0 - spec.decay_fraction;
  if (progress <= begin || spec.decay_fraction <= 0) return 1.0;
  const double way = std::min((progress - begin) / spec.decay_fraction, 1.0);
  return 1.0 - (1.0 - spec.final_fraction) * std::sqrt(way);
}

}  // namespace

double learning_rate(const ScheduleSpec& spec, std::int64_t step, double progress) {
  const double warm =
      spec.warmup_steps > 0 ? std::min(1.0, static_cast<double>(step) / static_cast<double>(spec.warmup_steps)) : 1.0;
  return spec.learning_rate * warm * shape(spec, std::clamp(progress, 0.0, 1.0));
}

std::string unfinished_warmup(const ScheduleSpec& spec, std::int64_t steps) {
  if (spec.warmup_steps < steps || spec.warmup_steps == 0) return {};
  return fmt::format(
      "schedule.warmup_steps = {} leaves nothing of the {} steps of the run: its rate would reach {:.3g} of {:.3g} at "
      "most; set it to some {}",
      spec.warmup_steps, steps,
      spec.learning_rate * static_cast<double>(steps) / static_cast<double>(spec.warmup_steps), spec.learning_rate,
      steps / 20);
}

}  // namespace shoestring
