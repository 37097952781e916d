#include "core/model/families/deepseek_parts.h"

#include <fmt/core.h>

#include <cmath>

namespace shoestring {
namespace {

/// YaRN's attention factor (Peng et al. 2023, as DeepSeek uses it).
double yarn_mscale(double factor, double mscale) { return factor <= 1 ? 1.0 : 0.1 * mscale * std::log(factor) + 1.0; }

}  // namespace

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

void deepseek_matrices(const ModelSpec& spec, const MatrixVisitor& matrix) {
  const std::int64_t hidden = spec.hidden;
  mixture_matrices(spec, matrix);
  matrix("q_lora_rank", spec.q_lora_rank, hidden);
  matrix("kv_lora_rank", spec.kv_lora_rank + spec.qk_rope_head_dim, hidden);
  matrix("heads", spec.heads * (spec.qk_nope_head_dim + spec.qk_rope_head_dim),
         spec.q_lora_rank > 0 ? spec.q_lora_rank : hidden);
  matrix("kv_lora_rank", spec.heads * (spec.qk_nope_head_dim + spec.v_head_dim), spec.kv_lora_rank);
  matrix("v_head_dim", spec.heads * spec.v_head_dim, hidden);
}

void resolve_latent_attention(ModelConfig& config) {
  config.latent_attention = true;
  set_head(config, config.qk_nope_head_dim + config.qk_rope_head_dim, config.v_head_dim, config.qk_rope_head_dim);
  if (config.rope_scaling == RopeScalingKind::yarn && config.rope_mscale_all_dim != 0) {
    const double mscale = yarn_mscale(config.rope_factor, config.rope_mscale_all_dim);
    config.softmax_scale *= mscale * mscale;
  }
}

// head_dim is no key of these models: transformers 5 writes the rotated part's there.
void read_latent_attention(const ConfigKeys& keys, ModelSpec& spec) {
  spec.q_lora_rank = keys.integer("q_lora_rank", 0);
  spec.kv_lora_rank = keys.integer("kv_lora_rank");
  spec.qk_nope_head_dim = keys.integer("qk_nope_head_dim");
  spec.qk_rope_head_dim = keys.integer("qk_rope_head_dim");
  spec.v_head_dim = keys.integer("v_head_dim");
  keys.refuse_unless(keys.boolean("rope_interleave", !keys.says_null("rope_interleave")), "rope_interleave");
  keys.refuse_unless(keys.integer("num_key_value_heads", spec.heads) == spec.heads, "num_key_value_heads");
  keys.refuse_unless(!keys.boolean("attention_bias", false), "attention_bias");
}

void write_latent_attention(const ModelConfig& config, Json& keys) {
  keys.add("num_key_value_heads", config.heads);
  keys.add("q_lora_rank", config.q_lora_rank > 0 ? Json(config.q_lora_rank) : Json());
  keys.add("kv_lora_rank", config.kv_lora_rank);
  keys.add("qk_nope_head_dim", config.qk_nope_head_dim);
  keys.add("qk_rope_head_dim", config.qk_rope_head_dim);
  keys.add("v_head_dim", config.v_head_dim);
  keys.add("attention_bias", false);
}

void read_deepseek_experts(const ConfigKeys& keys, ModelSpec& spec, const DeepSeekExpertDefaults& defaults) {
  read_experts(keys, spec, defaults.normalised);
  spec.experts = keys.integer_under("n_routed_experts", "num_local_experts");
  spec.shared_experts = keys.integer("n_shared_experts", 0);
  spec.routed_scale = keys.number("routed_scaling_factor", defaults.routed_scale);
  spec.expert_groups = keys.integer("n_group", keys.says_null("n_group") ? 1 : defaults.groups);
  spec.expert_topk_groups = keys.integer("topk_group", keys.says_null("topk_group") ? 1 : defaults.topk_groups);
  spec.dense_layers = keys.integer("first_k_dense_replace", 0);
  spec.balance_loss = keys.number("aux_loss_alpha", spec.balance_loss);
  keys.refuse_unless(keys.integer("moe_layer_freq", 1) == 1, "moe_layer_freq");
}

void write_deepseek_experts(const ModelConfig& config, Json& keys) {
  write_experts(config, keys);
  keys.add("n_routed_experts", config.experts);
  keys.add("n_shared_experts", config.shared_experts);
  keys.add("routed_scaling_factor", config.routed_scale);
  keys.add("n_group", config.expert_groups);
  keys.add("topk_group", config.expert_topk_groups);
  keys.add("first_k_dense_replace", config.dense_layers);
  keys.add("moe_layer_freq", 1);
  keys.add("seq_aux", true);
  keys.add("aux_loss_alpha", config.balance_loss);
}

}  // namespace shoestring
