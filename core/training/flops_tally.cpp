#include "core/training/flops_tally.h"

#include "core/model/accounting.h"

namespace shoestring {

void FlopsTally::enter(const ModelConfig& model, const Recipe& recipe, const PhaseSpec& phase) {
  const FormatFlops flops =
      count_flops(model, recipe.precision, phase.sequence, lora_of(recipe, phase)).training_by_format();
  per_token_[RateFormat::fp64] = flops.f64;
  per_token_[RateFormat::fp32] = flops.f32;
  per_token_[RateFormat::bf16] = flops.bf16;
  per_token_[RateFormat::fp8] = flops.fp8;
}

void FlopsTally::add(double tokens) {
  for (int i = 0; i < kRateFormats; ++i) {
    const auto format = static_cast<RateFormat>(i);
    done_[format] += per_token_[format] * tokens;
  }
}

std::vector<std::pair<std::string, double>> FlopsTally::utilisation(double tokens, double device_seconds,
                                                                    const PerFormat& peak) const {
  std::vector<std::pair<std::string, double>> shares;
  for (int i = 0; i < kRateFormats; ++i) {
    const auto format = static_cast<RateFormat>(i);
    if (peak[format] <= 0 || per_token_[format] <= 0 || device_seconds <= 0) continue;
    shares.emplace_back(name(format), per_token_[format] * tokens / device_seconds / peak[format]);
  }
  return shares;
}

}  // namespace shoestring
