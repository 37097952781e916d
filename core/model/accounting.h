// What a model costs, from its configuration alone: parameters and FLOPs per token.
//
// FLOPs per token, the convention behind the figures (it gives 250.4 and 260.6 GFLOP for DeepSeek-V3 at 4096 tokens):
//   every weight matrix that a token passes   6 per weight: 2 forward, 2 input gradient, 2 weight gradient;
//                                             the output head is one of them, the embedding's look-up is none
//   attention core, per layer                 3 * sequence * heads * (qk_dim + v_dim): causal, so a token sees half the
//                                             sequence on average; the backward pass counts twice the forward pass and
//                                             its recomputation of the scores not at all
//   multi-token prediction                    its block, its 2d x d join, and the head a second time
//   norms, SwiGLU, softmax, the optimizer     nothing
#pragma once

#include <cstdint>

#include "core/model/config.h"
#include "core/model/transformer.h"

namespace shoestring {

/// Weights, vectors and the router's balancing biases.
struct ParameterCounts {
  std::int64_t total = 0;    ///< of the main model
  std::int64_t active = 0;   ///< of those, what one token passes: chosen experts only, without the embedding's look-up
  std::int64_t further = 0;  ///< own parameters of multi-token prediction
  std::int64_t further_active = 0;
  std::int64_t with_further() const { return total + further; }
};
ParameterCounts count_parameters(const ModelConfig& config);

/// FLOPs by the format of the operands.
struct FormatFlops {
  double f64 = 0;
  double f32 = 0;
  double bf16 = 0;
  double fp8 = 0;
  double total() const { return f64 + f32 + bf16 + fp8; }
  FormatFlops& operator+=(const FormatFlops& other);
};

struct FlopCounts {
  FormatFlops forward;  ///< of the main model
  FormatFlops backward;
  FormatFlops further;  ///< multi-token prediction, forward and backward; training only
  /// Forward and backward of one trained token.
  double training(bool with_further = true) const {
    return forward.total() + backward.total() + (with_further ? further.total() : 0);
  }
  /// The same by format.
  FormatFlops training_by_format() const;
};
/// FLOPs per token in sequences of `sequence` tokens. With adapters no weight has a gradient; the adapters' own
/// products, a hundredth, are not counted.
FlopCounts count_flops(const ModelConfig& config, const PrecisionSpec& precision, std::int64_t sequence,
                       const LoraSpec& lora = {});

}  // namespace shoestring
