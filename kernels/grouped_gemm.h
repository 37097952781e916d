// Matrix products by expert, over rows sorted by expert: group e owns rows offsets[e] .. offsets[e + 1].
//
// Rows that came from several ranks are several such runs, one behind the other: `sources` x `experts` groups, of which
// group s * experts + e belongs to expert e. They are one list of work too, the groups of one expert side by side.
//
//   rows grouped   c[rows of e, n] (=|+=) a[rows of e, k] * b_e[n, k]^T         forward and input gradient
//   k grouped      c_e[m, n]       (=|+=) a[rows of e, m]^T * b[rows of e, n]   weight gradient
//
// Formats, scales and promotion are those of gemm.h. Groups may be empty, have one row, or differ widely; all groups
// are run as one list of work. A row's result depends on its own group's weights only; in the k-grouped product the
// rows of a group are added in their order. On a CUDA device cuBLASLt takes all groups in one call where it is new
// enough (grouped_gemm_cublaslt.h), else each is a product of its own; of 8-bit operands either way only where groups
// begin and end at multiples of kGroupRows (plan_permutation makes them so).
//
// Scales of the k-grouped operands: 128x1 tiles along the rows restart at every group, so group e's tiles begin at
// segment_tiles(offsets, e), and their number is segment_tiles(offsets, experts).
#pragma once

#include <cstdint>
#include <span>

#include "kernels/gemm.h"

namespace shoestring {

/// Strides and sums of 8-bit operands are multiples of 16 for cuBLASLt (gemm_cublaslt.h), and in the k-grouped product
/// a group's rows are the sum.
inline constexpr std::int64_t kGroupRows = 16;

/// Number of `tile`-row tiles before group `expert`, each group rounded up: sum over g < expert of
/// ceil(rows of g / tile). `offsets` is [experts + 1].
std::int64_t segment_tiles(std::span<const std::int64_t> offsets, std::int64_t expert, std::int64_t tile = 128);

/// Packs the experts' matrices, stacked as [experts * rows, k] (`transposed` false: b_e = its rows) or used transposed
/// (`transposed` true: b_e = its rows, transposed: [k, rows]). Scales in 128x128 blocks need rows in multiples of 128
/// or scales with ceil(rows / 128) block rows for each expert: `scales` is [experts * ceil(rows / 128), ...].
void pack_experts(const ConstScaledView& stacked, std::int64_t experts, bool transposed, bool power_of_two_scales,
                  PackedMatrix& into, Stream& stream);

struct GroupedGemmArgs {
  TensorView c{};             ///< [rows, n] f32 or bf16 (f64 with f64 operands)
  ConstScaledView a{};        ///< [rows, k], scales per tensor, 1x128 or 1x32
  ConstScaledView b{};        ///< stacked experts: [experts * n, k], or [experts * k, n] when `b_transposed`
  bool b_transposed = false;  ///< b_e is used as its transpose: the input gradient
  std::span<const std::int64_t> offsets{};  ///< [groups + 1], offsets[0] = 0, offsets[groups] = rows; host memory.
                                            ///< Groups: the experts of b once, or once for each source
  ConstTensorView device_offsets{};  ///< the same in memory of the stream's device, where they stand there anyway
  bool accumulate = false;
  bool power_of_two_scales = false;
  const PackedMatrix* packed_b = nullptr;  ///< from pack_experts with the same `transposed`
  Arena& scratch;                          ///< at least grouped_gemm_scratch_bytes
  Stream& stream;
};
void grouped_gemm(const GroupedGemmArgs& args);
std::span<const Variant<GroupedGemmArgs>> grouped_gemm_variants();

struct GroupedWeightGemmArgs {
  TensorView c{};       ///< [groups * m, n] f32 or bf16 (f64 with f64 operands): dW, experts stacked; or, apart by
                        ///< source, [sources, experts * m, n] with any stride between the sources
  ConstScaledView a{};  ///< [rows, m], scales per tensor or 128x1 restarting at every group: dY
  ConstScaledView b{};  ///< [rows, n], likewise: X
  std::span<const std::int64_t> offsets{};  ///< [groups + 1]
  ConstTensorView device_offsets{};         ///< as above
  bool accumulate = false;
  bool power_of_two_scales = false;
  Arena& scratch;  ///< at least grouped_weight_gemm_scratch_bytes
  Stream& stream;
};
/// An empty group makes its c_e zero, or leaves it when accumulating.
void grouped_weight_gemm(const GroupedWeightGemmArgs& args);
std::span<const Variant<GroupedWeightGemmArgs>> grouped_weight_gemm_variants();

std::int64_t grouped_gemm_scratch_bytes(std::int64_t rows, std::int64_t n, std::int64_t k, std::int64_t groups,
                                        int workers, bool prepacked_b);
std::int64_t grouped_weight_gemm_scratch_bytes(std::int64_t rows, std::int64_t m, std::int64_t n, std::int64_t groups,
                                               int workers);

}  // namespace shoestring
