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

}  // namespace shoestring
