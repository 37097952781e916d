#include "core/model/step_tally.h"

#include <algorithm>
#include <numeric>

namespace shoestring {

StepTally::StepTally(std::int64_t mixtures, std::int64_t experts, bool count_precision)
    : balance_losses(static_cast<std::size_t>(mixtures), 0.0), counts_precision_(count_precision) {
  if (mixtures > 0) expert_loads = Tensor(DType::i64, {mixtures, experts});
}

TensorView StepTally::loads_of(std::int64_t mixture) {
  return expert_loads.view().slice(0, mixture, 1).reshaped({expert_loads.shape()[1]});
}

TensorView StepTally::balance_of(std::int64_t mixture) {
  return view_of(&balance_losses.at(static_cast<std::size_t>(mixture)), DType::f64, {1});
}

double StepTally::balance_loss() const { return std::accumulate(balance_losses.begin(), balance_losses.end(), 0.0); }

QuantizeCounts& operator+=(QuantizeCounts& counts, const QuantizeCounts& more) {
  counts.elements += more.elements;
  counts.saturated += more.saturated;
  counts.underflowed += more.underflowed;
  counts.non_finite += more.non_finite;
  counts.amax = std::max(counts.amax, more.amax);
  return counts;
}

PrecisionCounts& operator+=(PrecisionCounts& counts, const PrecisionCounts& more) {
  counts.activations += more.activations;
  counts.weights += more.weights;
  counts.gradients += more.gradients;
  return counts;
}

}  // namespace shoestring
