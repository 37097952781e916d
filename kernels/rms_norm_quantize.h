// RMSNorm into a low-precision format: what stands before a product in FP8, in one op.
#pragma once

#include "kernels/quantize.h"
#include "kernels/rms_norm.h"

namespace shoestring {

/// Forward whose y only lives in e4m3 (or e5m2): the same bits as rms_norm_forward into a tensor of x's format and then
/// quantize() of that (on the same device), but the tensor is a block of rows that stays in cache, or in registers.
struct RmsNormQuantizeArgs {
  ScaledView row_tiles{};      ///< [tokens, hidden], as in QuantizeArgs; or empty
  ScaledView column_tiles{};   ///< [tokens, hidden] kColumnTile128 or kColumnTile32, as in QuantizeArgs; or empty
  TensorView rstd{};           ///< [tokens], overwritten; empty when no gradient will be asked
  ConstTensorView x{};         ///< [tokens, hidden] f32 or bf16
  ConstTensorView gamma{};     ///< [hidden]
  ConstTensorView residual{};  ///< as in RmsNormArgs
  TensorView sum{};            ///< as in RmsNormArgs
  float eps;
  ScaleKind scale_kind = ScaleKind::f32;
  QuantizeCounts* counts = nullptr;
  Arena& scratch;  ///< rms_norm_quantize_scratch_bytes of it, given back on return
  Stream& stream;
};
void rms_norm_quantize(const RmsNormQuantizeArgs& args);
std::int64_t rms_norm_quantize_scratch_bytes(std::int64_t tokens, std::int64_t hidden, DeviceKind kind);
std::span<const Variant<RmsNormQuantizeArgs>> rms_norm_quantize_variants();

namespace rms_norm {
/// Throws where all but y breaks the contract of rms_norm_forward. In rms_norm.cpp.
void check_forward(const RmsNormArgs& args);
}  // namespace rms_norm

// The row that lives in another file.
namespace rms_norm::cuda {
std::string refuses(const RmsNormQuantizeArgs& args);
void forward_quantized(const RmsNormQuantizeArgs& args);
}  // namespace rms_norm::cuda

}  // namespace shoestring
