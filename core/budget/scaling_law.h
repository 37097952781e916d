// What loss a model of some size comes to after some tokens, as published fits say. Each was made on data, a tokenizer
// and a recipe of its own: between sizes they rank well, as absolute figures they are off by tenths.
#pragma once

#include <span>
#include <string_view>

namespace shoestring {

struct ScalingLaw {
  std::string_view name;
  std::string_view source;
  bool mixtures = false;  ///< knows what experts are worth; otherwise `expansion` must be 1
  /// Nats per token. `active`: parameters that a token passes; `expansion`: parameters of experts, all over active
  /// ones.
  double (*loss)(double active, double tokens, double expansion) = nullptr;
};

/// "joint_moe" first, which knows dense models and mixtures; then those of dense models alone.
std::span<const ScalingLaw> scaling_laws();
/// Throws Error(usage) that lists the names.
const ScalingLaw& scaling_law_named(std::string_view name);

/// DeepSeek LLM (arXiv 2401.02954, section 3.1): the best peak rate and batch by training FLOPs, the embedding's and
/// the head's left out.
double best_learning_rate(double flops);
double best_batch_tokens(double flops);

}  // namespace shoestring
