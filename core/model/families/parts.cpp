#include "core/model/families/parts.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>

#include "kernels/router.h"

namespace shoestring {

void check_dense(const ModelSpec& spec, Findings& found) {
  found.unless(spec.experts == 0, "experts", fmt::format("{} has no experts", name(spec.architecture)));
  found.range("feed_forward", spec.feed_forward, 1, kMostExtent);
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
  found.positive("routed_scale", spec.routed_scale);
  found.not_negative("bias_speed", spec.bias_speed);
  found.not_negative("balance_loss", spec.balance_loss);
  found.range("feed_forward", spec.feed_forward, spec.dense_layers > 0 ? 1 : 0, kMostExtent);
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
  found.unless(spec.mtp_layers == 0, "mtp_layers", "only deepseek_v3 predicts further tokens");
  found.unless(spec.kv_lora_rank == 0 && spec.q_lora_rank == 0, "kv_lora_rank",
               "only deepseek_v2 and deepseek_v3 have latent attention");
}

void mixture_matrices(const ModelSpec& spec, const MatrixVisitor& matrix) {
  matrix("expert_feed_forward", spec.experts * 2 * spec.expert_feed_forward, spec.hidden);
  matrix("shared_experts", spec.shared_experts * 2 * spec.expert_feed_forward, spec.hidden);
}

void grouped_matrices(const ModelSpec& spec, const MatrixVisitor& matrix) {
  const std::int64_t size = spec.head_dim > 0 ? spec.head_dim : spec.hidden / spec.heads;
  const std::int64_t kv_heads = spec.kv_heads > 0 ? spec.kv_heads : spec.heads;
  matrix("heads", (spec.heads + 2 * kv_heads) * size, spec.hidden);
}

void set_head(ModelConfig& config, std::int64_t qk_dim, std::int64_t v_dim, std::int64_t rope_dim) {
  config.qk_dim = qk_dim;
  config.v_dim = v_dim;
  config.rope_dim = rope_dim;
  config.softmax_scale = 1.0 / std::sqrt(static_cast<double>(qk_dim));
}

void resolve_grouped_attention(ModelConfig& config) {
  if (config.head_dim == 0) config.head_dim = config.hidden / config.heads;
  set_head(config, config.head_dim, config.head_dim, config.head_dim);
}

void read_grouped_attention(const ConfigKeys& keys, ModelSpec& spec) {
  spec.kv_heads = keys.integer("num_key_value_heads", spec.heads);
  spec.head_dim = keys.integer("head_dim", 0);
  keys.refuse_unless(!keys.boolean("attention_bias", false), "attention_bias");
  keys.refuse_unless(!keys.boolean("use_sliding_window", false), "use_sliding_window");
}

void write_grouped_attention(const ModelConfig& config, Json& keys) {
  keys.add("num_key_value_heads", config.kv_heads);
  keys.add("head_dim", config.head_dim);
  keys.add("attention_bias", false);
}

void read_experts(const ConfigKeys& keys, ModelSpec& spec, bool normalised_unless_said) {
  spec.expert_feed_forward = keys.integer("moe_intermediate_size");
  spec.experts_per_token = keys.integer("num_experts_per_tok");
  spec.normalize_weights = keys.boolean("norm_topk_prob", normalised_unless_said && !keys.says_null("norm_topk_prob"));
}

void write_experts(const ModelConfig& config, Json& keys) {
  keys.add("moe_intermediate_size", config.expert_feed_forward);
  keys.add("num_experts_per_tok", config.experts_per_token);
  keys.add("norm_topk_prob", config.normalize_weights);
}

}  // namespace shoestring
