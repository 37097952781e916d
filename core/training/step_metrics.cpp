#include "core/training/step_metrics.h"

#include <algorithm>
#include <array>

#include <fmt/core.h>

namespace shoestring {
namespace {

void add_shares(const PrecisionCounts& precision, StepMetrics& metrics) {
  const std::array<std::pair<const char*, const QuantizeCounts*>, 3> classes = {{
      {"activation", &precision.activations},
      {"weight", &precision.weights},
      {"gradient", &precision.gradients},
  }};
  for (const auto& [name, counts] : classes) {
    if (counts->elements == 0) continue;
    const auto share = [all = static_cast<double>(counts->elements)](std::int64_t part) {
      return static_cast<double>(part) / all;
    };
    metrics.shares.emplace_back(fmt::format("saturated.{}", name), share(counts->saturated));
    metrics.shares.emplace_back(fmt::format("underflowed.{}", name), share(counts->underflowed));
  }
}

}  // namespace

std::vector<double> max_violations(const Tensor& router_counts) {
  std::vector<double> all;
  if (router_counts.empty()) return all;
  const std::int64_t experts = router_counts.shape()[1];
  for (std::int64_t layer = 0; layer < router_counts.shape()[0]; ++layer) {
    const std::int64_t* counts = router_counts.as<std::int64_t>() + layer * experts;
    double sum = 0;
    for (std::int64_t e = 0; e < experts; ++e) sum += static_cast<double>(counts[e]);
    const double most = static_cast<double>(*std::max_element(counts, counts + experts));
    all.push_back(sum > 0 ? most * static_cast<double>(experts) / sum - 1.0 : 0.0);
  }
  return all;
}

StepMetrics step_metrics(const StepOutcome& outcome, const TrainingState& state, const std::string& phase) {
  const PassResult& batch = outcome.batch;
  StepMetrics metrics;
  metrics.step = state.step;
  metrics.phase = phase;
  metrics.tokens = state.tokens;
  metrics.learned_tokens = state.learned_tokens;
  metrics.sequences = outcome.sequences;
  metrics.loss = outcome.loss;
  metrics.mtp_loss = batch.further_tokens > 0 ? batch.further_loss / batch.further_tokens : 0;
  metrics.gradient_norm = outcome.gradient_norm;
  metrics.learning_rate = outcome.learning_rate;
  const Judgement& judgement = outcome.judgement;
  switch (judgement.verdict) {
    case StepVerdict::apply:
      if (outcome.gradient_norm > judgement.norm_limit) metrics.clipped_to = judgement.norm_limit;
      metrics.stands_out = judgement.why;
      break;
    case StepVerdict::go_back: metrics.went_back = judgement.why; break;
    case StepVerdict::skip:
    case StepVerdict::end: metrics.skipped = judgement.why; break;
  }
  metrics.clipped_steps = state.guard.clipped;
  metrics.skipped_steps = state.guard.skipped;
  for (const double layer : max_violations(batch.router_counts)) {
    metrics.expert_overload = std::max(metrics.expert_overload, layer);
  }
  add_shares(batch.precision, metrics);
  return metrics;
}

}  // namespace shoestring
