// DeepSeek-V3 (arXiv 2412.19437): multi-head latent attention with interleaved RoPE, experts in groups balanced by a
// bias, shared experts, multi-token prediction.
#include <fmt/core.h>

#include <cmath>

#include "core/model/families/parts.h"

namespace shoestring {
namespace {

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

void check(const ModelSpec& spec, Findings& found) {
  check_mixture(spec, found);
  found.range("shared_experts", spec.shared_experts, 0, 1024);
  found.unless(spec.router != RouterKindSpec::softmax || spec.expert_groups <= 1, "router",
               "a softmax router does not choose groups: use sigmoid, or expert_groups = 1");
  check_latent_attention(spec, found);
  found.range("mtp_layers", spec.mtp_layers, 0, 1);
  found.not_negative("mtp_weight", spec.mtp_weight);
}

void matrices(const ModelSpec& spec, const MatrixVisitor& matrix) {
  const std::int64_t hidden = spec.hidden;
  mixture_matrices(spec, matrix);
  matrix("q_lora_rank", spec.q_lora_rank, hidden);
  matrix("kv_lora_rank", spec.kv_lora_rank + spec.qk_rope_head_dim, hidden);
  matrix("heads", spec.heads * (spec.qk_nope_head_dim + spec.qk_rope_head_dim),
         spec.q_lora_rank > 0 ? spec.q_lora_rank : hidden);
  matrix("kv_lora_rank", spec.heads * (spec.qk_nope_head_dim + spec.v_head_dim), spec.kv_lora_rank);
  matrix("v_head_dim", spec.heads * spec.v_head_dim, hidden);
  matrix("hidden", spec.mtp_layers * 2 * hidden, hidden);
}

/// YaRN's attention factor (Peng et al. 2023, as DeepSeek uses it).
double yarn_mscale(double factor, double mscale) { return factor <= 1 ? 1.0 : 0.1 * mscale * std::log(factor) + 1.0; }

void resolve(ModelConfig& config) {
  config.latent_attention = true;
  config.router_bias = true;
  set_head(config, config.qk_nope_head_dim + config.qk_rope_head_dim, config.v_head_dim, config.qk_rope_head_dim);
  if (config.rope_scaling == RopeScalingKind::yarn && config.rope_mscale_all_dim != 0) {
    const double mscale = yarn_mscale(config.rope_factor, config.rope_mscale_all_dim);
    config.softmax_scale *= mscale * mscale;
  }
}

}  // namespace

const Family kDeepSeekV3{.architecture = Architecture::deepseek_v3,
                         .experts = true,
                         .latent_attention = true,
                         .further_tokens = true,
                         .check = check,
                         .matrices = matrices,
                         .resolve = resolve};

}  // namespace shoestring
