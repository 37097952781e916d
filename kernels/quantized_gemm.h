// A matrix product that quantises its left operand: quantize of x, then gemm or grouped_gemm, in one op.
//
//   (values, scales) = quantize(x)   in row tiles              c (=|+=) (values, scales) * b^T (+ bias)
//
// The result is that of the two ops one after the other, bit for bit. The row codes serve this product only, so a
// variant need not write them down: with AMX or AVX2 each worker rounds the rows that it multiplies as it packs them.
// What other products read (x in column tiles, for the weight gradient) is written as quantize would.
//
// On a CUDA stream: dense products that cuBLASLt takes (gemm_cublaslt.h), so row tiles of 1x128 with f32 scales of x,
// powers of two or not; anything else is declined before x is quantised.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/gemm.h"
#include "kernels/quantize.h"

namespace shoestring {

struct QuantizedGemmArgs {
  TensorView c{};                         ///< [m, n] f32 or bf16, as in GemmArgs; must not overlap x
  ConstTensorView x{};                    ///< [m, k] f32 or bf16
  DType values = DType::e4m3;             ///< e4m3 or e5m2: what x is rounded to
  Granularity row_tile = kRowTile128;     ///< kRowTile128 or kRowTile32
  ScaleKind scale_kind = ScaleKind::f32;  ///< of x; powers of two are taken to be b's too
  ScaledView column_tiles{};              ///< as in QuantizeArgs, optional; `offsets` are its segments
  ConstScaledView b{};        ///< 8-bit [n, k] (or [k, n]), as in GemmArgs or, with `offsets`, GroupedGemmArgs
  bool b_transposed = false;  ///< b is given as [k, n]
  std::span<const std::int64_t> offsets{};  ///< [experts + 1], as in GroupedGemmArgs; empty: one dense product
  ConstTensorView device_offsets{};         ///< as there
  bool accumulate = false;
  const PackedMatrix* packed_b = nullptr;  ///< what `pack` or `pack_experts` made of b, or nullptr
  ConstTensorView bias{};                  ///< as in GemmArgs; dense only
  QuantizeCounts* counts = nullptr;        ///< of both copies, as quantize counts them; optional
  Arena& scratch;                          ///< at least quantized_gemm_scratch_bytes; given back on return
  Stream& stream;
};

void quantized_gemm(const QuantizedGemmArgs& args);
std::span<const Variant<QuantizedGemmArgs>> quantized_gemm_variants();

/// Enough for every variant; `experts` 0: dense.
std::int64_t quantized_gemm_scratch_bytes(std::int64_t m, std::int64_t n, std::int64_t k, std::int64_t experts,
                                          int workers, bool prepacked_b);

}  // namespace shoestring
