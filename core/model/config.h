// The architecture of one model, complete: a ModelSpec with every default filled in, and what follows from it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/recipe/recipe.h"

namespace shoestring {

/// All extents are known and consistent. Built by resolve_model or read_hugging_face_config, never by hand.
struct ModelConfig : ModelSpec {
  // What the architecture's name means.
  bool latent_attention = false;  ///< multi-head latent attention, interleaved RoPE (deepseek_v2, deepseek_v3)
  bool qkv_bias = false;          ///< biases on q, k, v (qwen2)
  bool qk_norm = false;           ///< RMSNorm of each query and key head before RoPE (qwen3, qwen3_moe)
  bool router_bias = false;       ///< balancing bias that steers selection only (deepseek_v3)
  bool group_by_best = false;     ///< a group of experts scores as its best one (deepseek_v2), not its two best

  // What follows from the extents.
  std::int64_t qk_dim = 0;    ///< of one query or key head
  std::int64_t v_dim = 0;     ///< of one value head
  std::int64_t rope_dim = 0;  ///< rotated part of a query or key head
  double softmax_scale = 0;   ///< qk_dim^-0.5, times mscale^2 under YaRN

  bool mixture(std::int64_t layer) const { return experts > 0 && layer >= dense_layers; }
  /// Mixtures of experts in the order of the layers, that of multi-token prediction last.
  std::int64_t mixtures() const { return experts > 0 ? layers + mtp_layers - dense_layers : 0; }
  std::int64_t mixture_index(std::int64_t layer) const { return layer - dense_layers; }
  std::int64_t shared_feed_forward() const { return shared_experts * expert_feed_forward; }
};

/// A fault of a model section. `key` is the recipe's ("model.heads").
struct ConfigProblem {
  std::string key;
  std::string text;
};

/// Everything wrong with `spec`, empty when nothing is. `tokenizer_vocabulary` 0: not known yet.
std::vector<ConfigProblem> check_model(const ModelSpec& spec, std::int64_t tokenizer_vocabulary);

/// Fills the defaults: the vocabulary from the tokenizer (rounded up to a multiple of 64), max_positions from the
/// longest phase. Throws Error(bad_recipe) that lists every problem.
ModelConfig resolve_model(const ModelSpec& spec, std::int64_t tokenizer_vocabulary, std::int64_t longest_sequence);

/// The recipe's word for an architecture, and Hugging Face's `model_type` (they agree).
std::string_view name(Architecture architecture);

}  // namespace shoestring
