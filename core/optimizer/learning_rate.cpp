#include "core/optimizer/learning_rate.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace shoestring {
namespace {

double half_cosine(double way) { return 0.5 * (1.0 + std::cos(std::numbers::pi * std::clamp(way, 0.0, 1.0))); }

constexpr double kTotal = 14.8;  // trillion tokens
constexpr double kDeepSeekStable = 10.0 / kTotal;

double deepseek_v3(double progress) {
  if (progress < kDeepSeekStable) return 1.0;
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

double stable_share(const ScheduleSpec& spec) {
  if (spec.kind == LearningRateKind::deepseek) return kDeepSeekStable;
  const bool decays = spec.decay_fraction > 0 && spec.decay_fraction < 1;
  return spec.kind == LearningRateKind::warmup_stable_decay && decays ? 1.0 - spec.decay_fraction : 1.0;
}

}  // namespace shoestring
