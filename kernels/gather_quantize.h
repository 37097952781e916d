// Tokens into expert order in a low-precision format: what stands before the products of experts in FP8, in one op.
#pragma once

#include "kernels/permute.h"
#include "kernels/quantize.h"

namespace shoestring {

/// Gather without weights whose xp only lives in e4m3 (or e5m2): the same bits as gather_rows into a tensor of x's
/// format and then quantize() of that, which is not written down.
struct GatherQuantizeArgs {
  ScaledView row_tiles{};     ///< [rows or more, hidden], as in QuantizeArgs; or empty
  ScaledView column_tiles{};  ///< [rows or more, hidden] kColumnTile128 or kColumnTile32, as in QuantizeArgs; or empty
  ConstTensorView x{};        ///< [tokens, hidden] f32 or bf16
  Permutation plan{};
  ScaleKind scale_kind = ScaleKind::f32;
  std::span<const std::int64_t> segments{};  ///< as in QuantizeArgs: the experts' offsets. Host memory
  QuantizeCounts* counts = nullptr;
  Arena& scratch;  ///< gather_quantize_scratch_bytes(hidden) of it on a CPU, given back on return
  Stream& stream;
};
void gather_quantize(const GatherQuantizeArgs& args);
std::int64_t gather_quantize_scratch_bytes(std::int64_t hidden);
std::span<const Variant<GatherQuantizeArgs>> gather_quantize_variants();

// The row that lives in another file.
namespace permute::cuda {
std::string refuses(const GatherQuantizeArgs& args);
void gather_quantized(const GatherQuantizeArgs& args);
}  // namespace permute::cuda

}  // namespace shoestring
