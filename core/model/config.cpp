#include "core/model/config.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/base/check.h"
#include "kernels/router.h"

namespace shoestring {
namespace {

constexpr std::int64_t kVocabularyMultiple = 64;  // whole tiles for the output head
constexpr std::int64_t kMostElements = std::int64_t{1} << 40;
constexpr std::int64_t kMostExtent = std::int64_t{1} << 24;
constexpr std::int64_t kMostLayers = 4096;

bool is_mixture(Architecture architecture) {
  return architecture == Architecture::qwen3_moe || architecture == Architecture::deepseek_v3;
}

/// Collects problems; each test names one key.
class Findings {
 public:
  void unless(bool holds, std::string_view key, std::string text) {
    if (!holds) problems_.push_back({fmt::format("model.{}", key), std::move(text)});
  }
  void range(std::string_view key, std::int64_t value, std::int64_t least, std::int64_t most) {
    unless(value >= least && value <= most, key, fmt::format("must lie between {} and {}, is {}", least, most, value));
  }
  void positive(std::string_view key, double value) {
    unless(std::isfinite(value) && value > 0, key, fmt::format("must be above 0, is {}", value));
  }
  void not_negative(std::string_view key, double value) {
    unless(std::isfinite(value) && value >= 0, key, fmt::format("must not be negative, is {}", value));
  }
  bool clean() const { return problems_.empty(); }
  std::vector<ConfigProblem> take() { return std::move(problems_); }

 private:
  std::vector<ConfigProblem> problems_;
};

void check_extents(const ModelSpec& spec, std::int64_t tokenizer_vocabulary, Findings& found) {
  found.range("vocabulary", spec.vocabulary, 0, kMostExtent);
  found.unless(spec.vocabulary == 0 || spec.vocabulary >= tokenizer_vocabulary, "vocabulary",
               fmt::format("{} is smaller than the tokenizer's {}", spec.vocabulary, tokenizer_vocabulary));
  found.range("layers", spec.layers, 1, kMostLayers);
  found.range("hidden", spec.hidden, 1, kMostExtent);
  found.range("heads", spec.heads, 1, kMostExtent);
  found.range("max_positions", spec.max_positions, 0, std::int64_t{1} << 30);
  found.positive("norm_eps", spec.norm_eps);
  found.positive("init_std", spec.init_std);
}

void check_grouped_attention(const ModelSpec& spec, Findings& found) {
  found.range("kv_heads", spec.kv_heads, 0, kMostExtent);
  found.unless(spec.kv_heads == 0 || spec.heads % std::max<std::int64_t>(1, spec.kv_heads) == 0, "kv_heads",
               fmt::format("{} does not divide heads = {}", spec.kv_heads, spec.heads));
  found.range("head_dim", spec.head_dim, 0, kMostExtent);
  if (spec.head_dim == 0) {
    const std::int64_t heads = std::max<std::int64_t>(1, spec.heads);
    found.unless(spec.hidden % heads == 0 && spec.hidden / heads % 2 == 0, "heads",
                 fmt::format("hidden = {} over heads = {} must be even, or give head_dim", spec.hidden, spec.heads));
  } else {
    found.unless(spec.head_dim % 2 == 0, "head_dim", fmt::format("must be even for RoPE, is {}", spec.head_dim));
  }
}

void check_latent_attention(const ModelSpec& spec, Findings& found) {
  found.range("q_lora_rank", spec.q_lora_rank, 0, kMostExtent);
  found.range("kv_lora_rank", spec.kv_lora_rank, 1, kMostExtent);
  found.range("qk_nope_head_dim", spec.qk_nope_head_dim, 1, kMostExtent);
  found.range("qk_rope_head_dim", spec.qk_rope_head_dim, 2, kMostExtent);
  found.unless(spec.qk_rope_head_dim % 2 == 0, "qk_rope_head_dim",
               fmt::format("must be even for RoPE, is {}", spec.qk_rope_head_dim));
  found.range("v_head_dim", spec.v_head_dim, 1, kMostExtent);
  found.unless(spec.kv_heads == 0 || spec.kv_heads == spec.heads, "kv_heads",
               "latent attention gives every query head its own key and value head: leave it out");
  found.unless(spec.head_dim == 0, "head_dim", "latent attention uses qk_nope_head_dim, qk_rope_head_dim, v_head_dim");
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

void check_mixture(const ModelSpec& spec, Findings& found) {
  found.range("experts", spec.experts, 1, kRouterMaxExperts);
  found.range("experts_per_token", spec.experts_per_token, 1, std::max<std::int64_t>(1, spec.experts));
  found.range("expert_feed_forward", spec.expert_feed_forward, 1, kMostExtent);
  found.range("dense_layers", spec.dense_layers, 0, std::max<std::int64_t>(0, spec.layers));
  found.range("expert_groups", spec.expert_groups, 1, std::max<std::int64_t>(1, spec.experts));
  found.range("expert_topk_groups", spec.expert_topk_groups, 1, std::max<std::int64_t>(1, spec.expert_groups));
  const std::int64_t groups = std::max<std::int64_t>(1, spec.expert_groups);
  found.unless(spec.experts % groups == 0, "expert_groups",
               fmt::format("{} does not divide experts = {}", spec.expert_groups, spec.experts));
  found.unless(spec.experts_per_token <= spec.expert_topk_groups * (spec.experts / groups), "experts_per_token",
               fmt::format("{} experts do not fit the {} chosen groups of {}", spec.experts_per_token,
                           spec.expert_topk_groups, spec.experts / groups));
  found.unless(groups == 1 || spec.experts / groups >= 2, "expert_groups",
               "a group's score is the sum of its two best experts: give each group at least 2");
  found.positive("routed_scale", spec.routed_scale);
  found.not_negative("bias_speed", spec.bias_speed);
  found.not_negative("balance_loss", spec.balance_loss);
  if (spec.architecture == Architecture::qwen3_moe) {
    found.unless(spec.shared_experts == 0, "shared_experts", "qwen3_moe has no shared experts");
    found.unless(groups == 1, "expert_groups", "qwen3_moe does not group its experts");
    found.unless(spec.routed_scale == 1, "routed_scale", "qwen3_moe does not scale its routed experts");
    found.unless(spec.router != RouterKindSpec::sqrt_softplus, "router", "qwen3_moe routes by softmax");
  } else {
    found.range("shared_experts", spec.shared_experts, 0, 1024);
    found.unless(spec.router != RouterKindSpec::softmax || groups == 1, "router",
                 "a softmax router does not choose groups: use sigmoid, or expert_groups = 1");
  }
}

void check_families(const ModelSpec& spec, Findings& found) {
  if (is_mixture(spec.architecture)) {
    check_mixture(spec, found);
  } else {
    found.unless(spec.experts == 0, "experts", fmt::format("{} has no experts", name(spec.architecture)));
  }
  const bool dense_feed_forward = !is_mixture(spec.architecture) || spec.dense_layers > 0;
  found.range("feed_forward", spec.feed_forward, dense_feed_forward ? 1 : 0, kMostExtent);
  if (spec.architecture == Architecture::deepseek_v3) {
    check_latent_attention(spec, found);
    found.range("mtp_layers", spec.mtp_layers, 0, 1);
    found.not_negative("mtp_weight", spec.mtp_weight);
  } else {
    check_grouped_attention(spec, found);
    found.unless(spec.mtp_layers == 0, "mtp_layers", "only deepseek_v3 predicts further tokens");
    found.unless(spec.kv_lora_rank == 0 && spec.q_lora_rank == 0, "kv_lora_rank",
                 "only deepseek_v3 has latent attention");
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
  matrix("expert_feed_forward", spec.experts * 2 * spec.expert_feed_forward, hidden);
  matrix("shared_experts", spec.shared_experts * 2 * spec.expert_feed_forward, hidden);
  if (spec.architecture == Architecture::deepseek_v3) {
    matrix("q_lora_rank", spec.q_lora_rank, hidden);
    matrix("kv_lora_rank", spec.kv_lora_rank + spec.qk_rope_head_dim, hidden);
    matrix("heads", spec.heads * (spec.qk_nope_head_dim + spec.qk_rope_head_dim),
           spec.q_lora_rank > 0 ? spec.q_lora_rank : hidden);
    matrix("kv_lora_rank", spec.heads * (spec.qk_nope_head_dim + spec.v_head_dim), spec.kv_lora_rank);
    matrix("v_head_dim", spec.heads * spec.v_head_dim, hidden);
    matrix("hidden", spec.mtp_layers * 2 * hidden, hidden);
  } else {
    const std::int64_t size = spec.head_dim > 0 ? spec.head_dim : hidden / spec.heads;
    const std::int64_t kv_heads = spec.kv_heads > 0 ? spec.kv_heads : spec.heads;
    matrix("heads", (spec.heads + 2 * kv_heads) * size, hidden);
  }
}

/// YaRN's attention factor (Peng et al. 2023, as DeepSeek uses it).
double yarn_mscale(double factor, double mscale) { return factor <= 1 ? 1.0 : 0.1 * mscale * std::log(factor) + 1.0; }

}  // namespace

std::vector<ConfigProblem> check_model(const ModelSpec& spec, std::int64_t tokenizer_vocabulary) {
  Findings found;
  check_extents(spec, tokenizer_vocabulary, found);
  check_rope(spec, found);
  check_families(spec, found);
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
  config.latent_attention = config.architecture == Architecture::deepseek_v3;
  config.qkv_bias = config.architecture == Architecture::qwen2;
  config.qk_norm = config.architecture == Architecture::qwen3 || config.architecture == Architecture::qwen3_moe;
  config.router_bias = config.architecture == Architecture::deepseek_v3;
  if (config.architecture == Architecture::qwen3_moe) config.router = RouterKindSpec::softmax;
  if (config.latent_attention) {
    config.qk_dim = config.qk_nope_head_dim + config.qk_rope_head_dim;
    config.v_dim = config.v_head_dim;
    config.rope_dim = config.qk_rope_head_dim;
  } else {
    if (config.head_dim == 0) config.head_dim = config.hidden / config.heads;
    config.qk_dim = config.v_dim = config.rope_dim = config.head_dim;
  }
  config.softmax_scale = 1.0 / std::sqrt(static_cast<double>(config.qk_dim));
  if (config.rope_scaling == RopeScalingKind::yarn && config.latent_attention && config.rope_mscale_all_dim != 0) {
    const double mscale = yarn_mscale(config.rope_factor, config.rope_mscale_all_dim);
    config.softmax_scale *= mscale * mscale;
  }
  return config;
}

std::string_view name(Architecture architecture) {
  switch (architecture) {
    case Architecture::llama: return "llama";
    case Architecture::qwen2: return "qwen2";
    case Architecture::qwen3: return "qwen3";
    case Architecture::qwen3_moe: return "qwen3_moe";
    case Architecture::deepseek_v3: return "deepseek_v3";
  }
  return "unknown";
}

}  // namespace shoestring
