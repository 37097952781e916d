#include "core/model/config.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>

#include "core/model/families/parts.h"
#include "core/recipe/names.h"
#include "kernels/base/check.h"

namespace shoestring {
namespace {

constexpr std::int64_t kVocabularyMultiple = 64;  // whole tiles for the output head
constexpr std::int64_t kMostElements = std::int64_t{1} << 40;
constexpr std::int64_t kMostLayers = 4096;

void check_extents(const ModelSpec& spec, std::int64_t tokenizer_vocabulary, Findings& found) {
  found.range("vocabulary", spec.vocabulary, 0, kMostExtent);
  found.unless(spec.vocabulary == 0 || spec.vocabulary >= tokenizer_vocabulary, "vocabulary",
               fmt::format("{} is smaller than the tokenizer's {}", spec.vocabulary, tokenizer_vocabulary));
  found.range("layers", spec.layers, 1, kMostLayers);
  found.range("hidden", spec.hidden, 1, kMostExtent);
  found.range("heads", spec.heads, 1, kMostExtent);
  found.range("max_positions", spec.max_positions, 0, std::int64_t{1} << 30);
  found.unless(spec.norm_eps > 0 && spec.norm_eps <= 1, "norm_eps",
               fmt::format("must be above 0 and at most 1, is {}", spec.norm_eps));
  found.positive("init_std", spec.init_std);
}

void check_rope(const ModelSpec& spec, Findings& found) {
  found.unless(std::isfinite(spec.rope_theta) && spec.rope_theta > 1, "rope_theta",
               fmt::format("must be above 1, is {}", spec.rope_theta));
  if (spec.rope_scaling == RopeScalingKind::none) return;
  found.unless(std::isfinite(spec.rope_factor) && spec.rope_factor >= 1, "rope_factor",
               fmt::format("must be at least 1, is {}", spec.rope_factor));
  found.range("rope_original_positions", spec.rope_original_positions, 1, std::int64_t{1} << 30);
  if (spec.rope_scaling == RopeScalingKind::llama3) {
    found.positive("rope_low_frequency_factor", spec.rope_low_frequency_factor);
    found.unless(spec.rope_high_frequency_factor > spec.rope_low_frequency_factor, "rope_high_frequency_factor",
                 "must be above rope_low_frequency_factor");
  } else {
    found.positive("rope_beta_slow", spec.rope_beta_slow);
    found.unless(spec.rope_beta_fast > spec.rope_beta_slow, "rope_beta_fast", "must be above rope_beta_slow");
    found.not_negative("rope_mscale", spec.rope_mscale);
    found.not_negative("rope_mscale_all_dim", spec.rope_mscale_all_dim);
  }
}

/// No weight matrix is so large that bytes summed over all layers could overflow. Fused projections and stacked experts
/// are one matrix. All extents have passed their own bounds, so the products here do not overflow either.
void check_matrices(const ModelSpec& spec, std::int64_t tokenizer_vocabulary, Findings& found) {
  const auto matrix = [&](std::string_view key, std::int64_t rows, std::int64_t columns) {
    found.unless(rows <= kMostElements / std::max<std::int64_t>(1, columns), key,
                 fmt::format("makes a weight matrix of {} x {}; at most {} elements are supported", rows, columns,
                             kMostElements));
  };
  const std::int64_t hidden = spec.hidden;
  matrix("vocabulary", std::max(spec.vocabulary, tokenizer_vocabulary), hidden);
  matrix("feed_forward", 2 * spec.feed_forward, hidden);
  family_of(spec.architecture).matrices(spec, matrix);
}

}  // namespace

std::vector<ConfigProblem> check_model(const ModelSpec& spec, std::int64_t tokenizer_vocabulary) {
  Findings found;
  check_extents(spec, tokenizer_vocabulary, found);
  check_rope(spec, found);
  family_of(spec.architecture).check(spec, found);
  if (found.clean()) check_matrices(spec, tokenizer_vocabulary, found);
  return found.take();
}

ModelConfig resolve_model(const ModelSpec& spec, std::int64_t tokenizer_vocabulary, std::int64_t longest_sequence) {
  std::vector<ConfigProblem> problems = check_model(spec, tokenizer_vocabulary);
  if (problems.empty() && spec.vocabulary == 0 && tokenizer_vocabulary <= 0) {
    problems.push_back({"model.vocabulary", "is not given, and there is no tokenizer to take it from"});
  }
  if (!problems.empty()) {
    std::string text = "the model cannot be built:";
    for (const ConfigProblem& problem : problems) text += fmt::format("\n  {}: {}", problem.key, problem.text);
    throw Error(ExitCode::bad_recipe, text);
  }
  ModelConfig config;
  static_cast<ModelSpec&>(config) = spec;
  if (config.vocabulary == 0) {
    config.vocabulary = (tokenizer_vocabulary + kVocabularyMultiple - 1) / kVocabularyMultiple * kVocabularyMultiple;
  }
  if (config.max_positions == 0) config.max_positions = longest_sequence;
  if (config.kv_heads == 0) config.kv_heads = config.heads;
  family_of(config.architecture).resolve(config);
  return config;
}

std::string_view name(Architecture architecture) { return word(architecture); }

}  // namespace shoestring
