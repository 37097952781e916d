// RMSNorm over the last dim, with an optional residual add before it.
//
//   s = x (+ residual);   rstd = 1 / sqrt(mean_j s_j^2 + eps);   y_j = s_j * rstd * gamma_j
//
// Source: Zhang, Sennrich: "Root Mean Square Layer Normalization" (2019), section 3.
//
// Shapes: rows are [tokens, hidden], or [tokens, heads, dim] to normalise every head by itself (QK-norm) with one
// gamma; statistics then are [tokens] or [tokens, heads]. The last dim is dense, the others may be strided: a head
// inside a fused projection or a column slice (latent norms) needs no copy. Formats: activations f32 or bf16 with gamma
// and rstd f32; or all f64. Math is float (double in the reference), rounded once; with a residual, y is computed from
// the rounded sum, so that the gradient sees the same numbers. A row's result does not depend on other rows; no result
// depends on the number of workers.
#pragma once

#include <span>

#include "kernels/base/device.h"
#include "kernels/base/tensor.h"
#include "kernels/base/variant.h"

namespace shoestring {

struct RmsNormArgs {
  TensorView y{};              ///< [tokens, hidden], overwritten; may be x (or sum) itself
  TensorView rstd{};           ///< [tokens], overwritten; empty when no gradient will be asked
  ConstTensorView x{};         ///< [tokens, hidden]
  ConstTensorView gamma{};     ///< [hidden]
  ConstTensorView residual{};  ///< [tokens, hidden], or empty
  TensorView sum{};            ///< [tokens, hidden], overwritten with x + residual; present when residual is; may be
                               ///< x or residual
  float eps;
  Stream& stream;
};
void rms_norm_forward(const RmsNormArgs& args);

/// dx_j (= | +=) rstd * (dy_j gamma_j - x_j rstd * mean_i(dy_i gamma_i x_i rstd)), x being what was normalised (sum,
/// where forward had a residual: its two inputs then share this gradient).
struct RmsNormInputGradientArgs {
  TensorView dx{};          ///< [tokens, hidden], overwritten or added to; may be dy when overwritten
  ConstTensorView dy{};     ///< [tokens, hidden]
  ConstTensorView x{};      ///< [tokens, hidden]
  ConstTensorView gamma{};  ///< [hidden]
  ConstTensorView rstd{};   ///< [tokens]
  bool accumulate = false;  ///< dx += instead of dx =, rounded once
  Stream& stream;
};
void rms_norm_input_gradient(const RmsNormInputGradientArgs& args);

/// dgamma_j += sum over rows of dy_j x_j rstd. Rows are added in blocks of kRmsNormRowBlock, blocks in order.
struct RmsNormWeightGradientArgs {
  TensorView dgamma{};     ///< [hidden] f32 or f64, added to
  ConstTensorView dy{};    ///< [tokens, hidden]
  ConstTensorView x{};     ///< [tokens, hidden]
  ConstTensorView rstd{};  ///< [tokens]
  /// [ceil(rows / kRmsNormRowBlock), hidden] f32, contiguous, or empty: room in which a device row works on all blocks
  /// of rows at once (at most 65535; the result is the same). Overwritten; CPU rows leave it alone.
  TensorView partials{};
  Stream& stream;
};
inline constexpr std::int64_t kRmsNormRowBlock = 128;
void rms_norm_weight_gradient(const RmsNormWeightGradientArgs& args);

// The tables, for tests and benchmarks.
std::span<const Variant<RmsNormArgs>> rms_norm_forward_variants();
std::span<const Variant<RmsNormInputGradientArgs>> rms_norm_input_gradient_variants();
std::span<const Variant<RmsNormWeightGradientArgs>> rms_norm_weight_gradient_variants();

// The rows that live in other files.
namespace rms_norm::simd {
std::string refuses(const RmsNormArgs& args);
std::string refuses(const RmsNormInputGradientArgs& args);
std::string refuses(const RmsNormWeightGradientArgs& args);
void forward(const RmsNormArgs& args);
void input_gradient(const RmsNormInputGradientArgs& args);
void weight_gradient(const RmsNormWeightGradientArgs& args);
}  // namespace rms_norm::simd
namespace rms_norm::cuda {
std::string refuses(const RmsNormArgs& args);
std::string refuses(const RmsNormInputGradientArgs& args);
std::string refuses(const RmsNormWeightGradientArgs& args);
void forward(const RmsNormArgs& args);
void input_gradient(const RmsNormInputGradientArgs& args);
void weight_gradient(const RmsNormWeightGradientArgs& args);
}  // namespace rms_norm::cuda

}  // namespace shoestring
