#include "core/budget/best_case.h"

#include <utility>

#include "core/model/accounting.h"

namespace shoestring {
namespace {

constexpr double kSecondsPerHour = 3600;

// Of one trained token; `unrated` is set where a rate is missing.
double seconds_per_token(const FormatFlops& flops, const Hardware& hardware, std::optional<RateFormat>& unrated) {
  double seconds = 0;
  for (const auto& [format, count] : {std::pair(RateFormat::fp8, flops.fp8), std::pair(RateFormat::bf16, flops.bf16),
                                      std::pair(RateFormat::fp32, flops.f32), std::pair(RateFormat::fp64, flops.f64)}) {
    if (count <= 0) continue;
    const double achievable = hardware.achievable_flops[format];
    const double rate = achievable > 0 ? achievable : hardware.peak_flops[format];
    if (rate <= 0) unrated = format;
    seconds += count / rate;
  }
  return seconds;
}

}  // namespace

double BestCase::tokens() const {
  double sum = 0;
  for (const PhaseBound& phase : phases) sum += phase.tokens;
  return sum;
}

double BestCase::gpu_hours() const {
  double sum = 0;
  for (const PhaseBound& phase : phases) sum += phase.gpu_hours;
  return sum;
}

BestCase best_case(const Recipe& recipe, const ModelConfig& config, const Hardware& hardware, double cap_gpu_hours) {
  BestCase best;
  double shares = 0;
  for (const PhaseSpec& phase : recipe.phases) shares += phase.share;
  for (const PhaseSpec& phase : recipe.phases) {
    const FormatFlops flops =
        count_flops(config, recipe.precision, phase.sequence, lora_of(recipe, phase)).training_by_format();
    const double seconds = seconds_per_token(flops, hardware, best.unrated);
    if (best.unrated) return {.phases = {}, .unrated = best.unrated};
    PhaseBound bound{.name = phase.name};
    if (recipe.schedule.horizon == Horizon::budget) {
      bound.gpu_hours = cap_gpu_hours * phase.share / shares;
      bound.tokens = bound.gpu_hours * kSecondsPerHour / seconds;
    } else {
      bound.tokens = recipe.schedule.horizon == Horizon::tokens
                         ? static_cast<double>(phase.tokens)
                         : static_cast<double>(phase.steps) * static_cast<double>(phase.global_batch * phase.sequence);
      bound.gpu_hours = bound.tokens * seconds / kSecondsPerHour;
    }
    best.phases.push_back(bound);
  }
  return best;
}

}  // namespace shoestring
