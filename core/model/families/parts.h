// What several families share.
#pragma once

#include "core/model/families/family.h"

namespace shoestring {

inline constexpr std::int64_t kMostExtent = std::int64_t{1} << 24;

/// No keys of experts, further tokens, latent attention; a feed-forward in every layer.
void check_dense(const ModelSpec& spec, Findings& found);
void check_mixture(const ModelSpec& spec, Findings& found);
void check_grouped_attention(const ModelSpec& spec, Findings& found);

void mixture_matrices(const ModelSpec& spec, const MatrixVisitor& matrix);
void grouped_matrices(const ModelSpec& spec, const MatrixVisitor& matrix);

/// Sets the extents of a head, and the softmax scale qk_dim^-0.5.
void set_head(ModelConfig& config, std::int64_t qk_dim, std::int64_t v_dim, std::int64_t rope_dim);
/// Heads of one size, rotated whole.
void resolve_grouped_attention(ModelConfig& config);

// config.json, for the families that share them.
/// Heads and feed-forward; refuses biases that the family has not, and a sliding window.
void read_grouped_attention(const ConfigKeys& keys, ModelSpec& spec);
void write_grouped_attention(const ModelConfig& config, Json& keys);
/// Width, number per token and normalisation of experts; the rest differs by family.
void read_experts(const ConfigKeys& keys, ModelSpec& spec, bool normalised_unless_said);
void write_experts(const ModelConfig& config, Json& keys);

}  // namespace shoestring
