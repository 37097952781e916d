#include "core/budget/suggestion.h"

#include <algorithm>
#include <cmath>

#include "core/model/accounting.h"
#include "kernels/base/check.h"

namespace shoestring {
namespace {

constexpr double kSecondsPerHour = 3600;
constexpr std::int64_t kHeads = 128;          // dimensions of one
constexpr double kHiddenPerLayer = 112;       // 4096 and 36 layers, 8192 and 73
constexpr std::int64_t kExpertsPerToken = 8;  // that together are as wide as a dense feed-forward
constexpr std::int64_t kSmallestHidden = 256;
constexpr std::int64_t kLargestHidden = 20480;
constexpr int kWorseInARow = 2;  // sizes that are no better, after which none will be
constexpr std::size_t kKeptOfAKind = 3;
constexpr double kGuessedUtilisation = 0.4;  // for the batch, which hardly depends on it

std::int64_t rounded_to(double value, std::int64_t multiple) {
  return std::max<std::int64_t>(1, std::llround(value / static_cast<double>(multiple))) * multiple;
}

/// A model of usual proportions; `expansion` 1: dense.
ModelSpec shape_of(std::int64_t hidden, std::int64_t expansion) {
  ModelSpec spec;
  spec.architecture = expansion > 1 ? Architecture::qwen3_moe : Architecture::llama;
  spec.hidden = hidden;
  spec.layers = rounded_to(static_cast<double>(hidden) / kHiddenPerLayer, 1);
  spec.heads = hidden / kHeads;
  spec.kv_heads = spec.heads % 4 == 0 ? spec.heads / 4 : spec.heads;
  spec.head_dim = kHeads;
  spec.feed_forward = rounded_to(static_cast<double>(hidden) * 8 / 3, kHeads);
  if (expansion > 1) {
    spec.experts = kExpertsPerToken * expansion;
    spec.experts_per_token = kExpertsPerToken;
    spec.expert_feed_forward = rounded_to(static_cast<double>(spec.feed_forward) / kExpertsPerToken, 32);
    spec.router = RouterKindSpec::softmax;
  }
  return spec;
}

std::int64_t next_hidden(std::int64_t hidden) {
  return hidden + std::max<std::int64_t>(kHeads, hidden / 8 / kHeads * kHeads);
}

double peak_of(const SuggestionQuestion& question) {
  const Hardware& hardware = question.hardware;
  const bool fp8 = question.recipe.precision.policy >= PrecisionPolicy::fp8_block;
  const double peak = hardware.peak_flops[fp8 ? RateFormat::fp8 : RateFormat::bf16];
  return peak > 0 ? peak : hardware.achievable_flops[RateFormat::fp32];
}

/// Nothing where it does not fit.
std::optional<Suggestion> price(const SuggestionQuestion& q, std::int64_t hidden, std::int64_t expansion) {
  Suggestion made;
  made.model = shape_of(hidden, expansion);
  made.model.vocabulary = q.vocabulary;
  made.expansion = static_cast<double>(expansion);
  PhaseSpec phase = q.recipe.phases.front();
  const ModelConfig config = resolve_model(made.model, q.vocabulary, phase.sequence);
  const ParameterCounts counts = count_parameters(config);
  made.parameters = static_cast<double>(counts.total);
  made.active = static_cast<double>(counts.active);
  const double head = 6 * static_cast<double>(q.vocabulary * hidden);
  const double per_token = count_flops(config, q.recipe.precision, phase.sequence).training() - head;
  const auto batch_for = [&](double flops) {
    return std::max<std::int64_t>(1, std::llround(best_batch_tokens(flops) / static_cast<double>(phase.sequence)));
  };
  phase.global_batch = batch_for(kGuessedUtilisation * peak_of(q) * kSecondsPerHour * q.gpu_hours);
  Recipe recipe = q.recipe;
  recipe.schedule.horizon = Horizon::budget;
  phase.share = 1;
  recipe.phases = {phase};
  const RunEstimate run = estimate_run(recipe, config, q.hardware, q.devices, std::nullopt, q.gpu_hours);
  if (!run.refusal.empty() || run.steps() < 1) return std::nullopt;
  made.layout = run.phases.front().layout;
  made.tokens = run.tokens();
  made.steps = run.steps();
  made.gpu_hours = run.gpu_hours();
  made.global_batch = phase.global_batch;
  made.learning_rate = best_learning_rate(per_token * made.tokens);
  made.loss = q.law.loss(made.active, made.tokens, made.expansion);
  return made;
}

/// The best sizes of one kind. Loss falls with size and then rises, so the walk ends soon after its lowest point; sizes
/// that fit no layout end it too, once any did.
std::vector<Suggestion> walk(const SuggestionQuestion& question, std::int64_t expansion) {
  std::vector<Suggestion> found;
  int worse = 0;
  double lowest = INFINITY;
  for (std::int64_t hidden = kSmallestHidden; hidden <= kLargestHidden && worse < kWorseInARow;
       hidden = next_hidden(hidden)) {
    const std::optional<Suggestion> made = price(question, hidden, expansion);
    if (!made) {
      worse += found.empty() ? 0 : 1;
      continue;
    }
    worse = made->loss < lowest ? 0 : worse + 1;
    lowest = std::min(lowest, made->loss);
    found.push_back(*made);
  }
  std::stable_sort(found.begin(), found.end(), [](const auto& a, const auto& b) { return a.loss < b.loss; });
  if (found.size() > kKeptOfAKind) found.resize(kKeptOfAKind);
  return found;
}

}  // namespace

std::vector<Suggestion> suggest(const SuggestionQuestion& question) {
  check(std::isfinite(question.gpu_hours) && question.gpu_hours > 0, "a suggestion needs GPU-hours to spend, not {}",
        question.gpu_hours);
  std::vector<Suggestion> all = walk(question, 1);
  if (question.law.mixtures) {
    for (const std::int64_t expansion : {8, 32}) {
      const std::vector<Suggestion> kind = walk(question, expansion);
      all.insert(all.end(), kind.begin(), kind.end());
    }
  }
  std::stable_sort(all.begin(), all.end(), [](const auto& a, const auto& b) { return a.loss < b.loss; });
  return all;
}

}  // namespace shoestring
