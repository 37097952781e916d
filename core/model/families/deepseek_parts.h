// What DeepSeek's V2 and V3 share: multi-head latent attention, and the keys of their experts.
#pragma once

#include "core/model/families/parts.h"

namespace shoestring {

void check_latent_attention(const ModelSpec& spec, Findings& found);
/// Experts, routed and shared, and latent attention.
void deepseek_matrices(const ModelSpec& spec, const MatrixVisitor& matrix);
/// Heads in two parts, only the second rotated; the softmax scale with YaRN's factor.
void resolve_latent_attention(ModelConfig& config);

// config.json.
void read_latent_attention(const ConfigKeys& keys, ModelSpec& spec);
void write_latent_attention(const ModelConfig& config, Json& keys);
/// What the keys of experts mean in transformers where they are absent.
struct DeepSeekExpertDefaults {
  bool normalised = false;
  double routed_scale = 1;
  std::int64_t groups = 1;
  std::int64_t topk_groups = 1;
};
void read_deepseek_experts(const ConfigKeys& keys, ModelSpec& spec, const DeepSeekExpertDefaults& defaults);
void write_deepseek_experts(const ModelConfig& config, Json& keys);

}  // namespace shoestring
