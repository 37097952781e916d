// Matrix product: c[m,n] (=|+=) sum_k a[m,k] * b[n,k] (+ bias[n]), in every number format that training uses.
//
// Both operands are written with k last; a transposed operand is a transposed view (ScaledView::transposed), either
// dim may be the contiguous one. Of one Linear with weights W [out, in]:
//   forward          c = Y  [tokens, out]   a = X                b = W
//   input gradient   c = dX [tokens, in]    a = dY               b = W.transposed()
//   weight gradient  c = dW [out, in]       a = dY.transposed()  b = X.transposed()    accumulate = true
//
// Formats: f64 (reference only); f32 x f32; bf16 x bf16; 8-bit x 8-bit (e4m3, e5m2) with scales. Sums are FP32.
// Scales (f32 or e8m0) may be per tensor, 1x128 or 128x128 (either operand), or 1x32 (both); written for the view as it
// is passed, that is with k along columns. Scaled 8-bit products are summed exactly as FP32 over each 128 (32) of k,
// then promoted:  acc += (scale_a * scale_b) * block_sum  (DeepSeek-V3, arXiv 2412.19437, section 3.3.2).
// Where both operands have power-of-two scales, these are moved into the BF16 exponents instead, which is exact;
// operands whose scales leave 2^-50 .. 2^50 are promoted like any other.
//
// A row of c depends neither on the number of workers nor on m.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/base/memory.h"
#include "kernels/base/tensor.h"
#include "kernels/base/variant.h"

namespace shoestring {

/// The right operand of a product in the layout that the variant for its format reads, for operands that are used many
/// times between changes: weights are packed once an optimizer step and read by every micro-batch. Owns its memory and
/// keeps it from one `pack` to the next. Opaque; empty until packed. Move-only; a packed matrix may be read by many
/// threads.
class PackedMatrix {
 public:
  /// How the panels hold their numbers; columns (n) go in panels of 32, padded with zeros.
  enum class Layout : std::uint8_t {
    none,
    bf16_pairs,   ///< [panel][k / 2][32][2] bf16: what AMX reads
    bf16_halves,  ///< [panel][k][2][8][2] bf16, each column beside the one eight behind it: what AVX2 reads for bf16
    f32,          ///< [panel][k][32] f32: what AVX-512, AVX2 and portable code read
  };

  bool empty() const { return layout_ == Layout::none; }
  std::int64_t bytes() const { return storage_.bytes(); }

  /// Bytes of the packed form of an [n, k] operand of `dtype` on this processor, for memory plans. `matrices` of them
  /// lie behind each other (one per expert).
  static std::int64_t packed_bytes(std::int64_t n, std::int64_t k, DType dtype, Granularity granularity,
                                   std::int64_t matrices = 1);

 private:
  friend struct PackedMatrixAccess;
  Storage storage_;
  Layout layout_ = Layout::none;
  std::int64_t matrices_ = 0;
  std::int64_t n_ = 0;
  std::int64_t k_ = 0;
  bool folded_ = false;           ///< the scales are part of the values
  std::int64_t k_per_scale_ = 0;  ///< scales stand behind the values, one for so many of k; 0: one for each matrix
};

/// Packs `b` [n, k] into `into`, reusing its memory where it is large enough. `power_of_two_scales` says that the f32
/// scales are powers of two (e8m0 always are); a scale that is not merely costs the faster path.
void pack(const ConstScaledView& b, bool power_of_two_scales, PackedMatrix& into, Stream& stream);

struct GemmArgs {
  TensorView c{};           ///< [m, n] f32, bf16 or f64; elements of a row are neighbours; overwritten, or added to
  ConstScaledView a{};      ///< [m, k]
  ConstScaledView b{};      ///< [n, k]; with `packed_b` only its shape, format and granularity are read
  bool accumulate = false;  ///< c += instead of c =
  bool power_of_two_scales = false;        ///< f32 scales of a and b are powers of two
  const PackedMatrix* packed_b = nullptr;  ///< what `pack` made of b, or nullptr
  ConstTensorView bias{};                  ///< [n] in c's format or f32, or empty
  /// a and b are one matrix, so c equals its transpose: half of it may be computed and mirrored. The same bits. Without
  /// accumulate, bias and packed_b.
  bool symmetric = false;
  Arena& scratch;  ///< at least gemm_scratch_bytes; given back on return
  Stream& stream;
};

/// c (=|+=) a * b^T (+ bias). Any extent may be 0 (k = 0 makes a sum of nothing: 0).
void gemm(const GemmArgs& args);
std::span<const Variant<GemmArgs>> gemm_variants();

/// Scratch that `gemm` needs for [m, k] x [n, k] with `workers` threads; enough for every format.
std::int64_t gemm_scratch_bytes(std::int64_t m, std::int64_t n, std::int64_t k, int workers, bool prepacked_b);

}  // namespace shoestring
