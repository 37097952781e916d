// SwiGLU, with the expert's routing weight folded in.
//
//   y_j = w * silu(g_j) * u_j,   silu(g) = g * sigmoid(g),   [g | u] = one row of gate_up, w its row weight (or 1)
//
// With clamp > 0: g = min(gate, clamp), u = min(max(up, -clamp), clamp); no gradient passes where a clamp held.
// Source: Shazeer: "GLU Variants Improve Transformer" (2020); row weights inside: DeepSeek-V3's expert combine is then
// a plain sum.
//
// Formats: activations f32 or bf16 with f32 row weights, or all f64. gate_up may also be e4m3 with 1x128 scales (f32 or
// e8m0), as cached for the backward pass: it is dequantised as it is read. Its width 2f then counts tiles from column
// 0, so f must be a multiple of 128. Math is float (double in the reference), rounded once. Rows may be strided,
// columns are dense. A row's result does not depend on other rows; no result depends on the number of workers.
#pragma once

#include <span>

#include "kernels/base/device.h"
#include "kernels/base/tensor.h"
#include "kernels/base/variant.h"
#include "kernels/quantize.h"

namespace shoestring {

struct SwigluArgs {
  TensorView y{};                ///< [rows, f], overwritten
  ConstScaledView gate_up{};     ///< [rows, 2f]: gate, then up; `unscaled(view)` for plain activations
  ConstTensorView row_weight{};  ///< [rows] f32 (f64), or empty for 1
  float clamp = 0;               ///< 0 = off
  Stream& stream;
};
void swiglu_forward(const SwigluArgs& args);

/// With a = silu(g), s = sigmoid(g):
///   dg_j = w dy_j u_j s (1 + g_j (1 - s));   du_j = w dy_j a_j;   dw = sum_j dy_j a_j u_j
struct SwigluGradientArgs {
  TensorView dgate_up{};         ///< [rows, 2f], overwritten; may be gate_up itself when that is plain
  TensorView drow_weight{};      ///< [rows] f32 (f64), overwritten; or empty
  TensorView y{};                ///< [rows, f], overwritten with forward's output recomputed; or empty
  ConstTensorView dy{};          ///< [rows, f]; y may be dy itself
  ConstScaledView gate_up{};     ///< [rows, 2f]
  ConstTensorView row_weight{};  ///< [rows], or empty for 1
  float clamp = 0;               ///< as in forward
  Stream& stream;
};
void swiglu_gradient(const SwigluGradientArgs& args);

/// Forward whose output only lives in e4m3 (or e5m2): the same bits as swiglu_forward into a tensor of `format` and
/// then quantize() of that (on the same device), but the tensor is a block of rows that stays in cache, or in
/// registers.
struct SwigluQuantizeArgs {
  ScaledView row_tiles{};        ///< [rows, f], as in QuantizeArgs; or empty
  ScaledView column_tiles{};     ///< [rows, f] kColumnTile128, as in QuantizeArgs; or empty
  ConstScaledView gate_up{};     ///< [rows, 2f]
  ConstTensorView row_weight{};  ///< [rows], or empty for 1
  float clamp = 0;
  DType format = DType::bf16;  ///< what y is rounded to before it is quantised: bf16 or f32
  ScaleKind scale_kind = ScaleKind::f32;
  std::span<const std::int64_t> segments{};  ///< row offsets where tall tiles restart, as in QuantizeArgs
  QuantizeCounts* counts = nullptr;
  Arena& scratch;  ///< swiglu_quantize_scratch_bytes(f) of it on a CPU, given back on return
  Stream& stream;
};
void swiglu_quantize(const SwigluQuantizeArgs& args);
std::int64_t swiglu_quantize_scratch_bytes(std::int64_t f);

// The tables, for tests and benchmarks.
std::span<const Variant<SwigluArgs>> swiglu_forward_variants();
std::span<const Variant<SwigluGradientArgs>> swiglu_gradient_variants();
std::span<const Variant<SwigluQuantizeArgs>> swiglu_quantize_variants();

// The rows that live in other files.
namespace swiglu::simd {
std::string refuses(const SwigluArgs& args);
std::string refuses(const SwigluGradientArgs& args);
void forward(const SwigluArgs& args);
void gradient(const SwigluGradientArgs& args);
}  // namespace swiglu::simd
namespace swiglu::cuda {
std::string refuses(const SwigluArgs& args);
std::string refuses(const SwigluGradientArgs& args);
std::string refuses(const SwigluQuantizeArgs& args);
void forward(const SwigluArgs& args);
void gradient(const SwigluGradientArgs& args);
void forward_quantized(const SwigluQuantizeArgs& args);
}  // namespace swiglu::cuda

}  // namespace shoestring
