// Tokens to experts and back: a plan, a gather into expert order, a combine in slot order.
//
// A slot is one (token, choice): slot = token * k + choice. A row is a slot's place among the expert rows. Rows are
// sorted by expert, then by token: no arrival order, no atomics, the same on every device and layout. Where products
// ask for it, each expert's rows begin at a multiple, and those between two experts are of no slot.
//
//   gather:   xp[row] = (w[slot_of_row[row]] *) x[slot_of_row[row] / k]
//   combine:  y[t] (= | +=) sum over choices c in order of (w[t, c] *) yp[row_of_slot[t * k + c]], in f32 (f64 for f64)
//
// Each is the other's gradient (gather's dx is combine(dxp), combine's dyp is gather(dy)); the gradient of the weights
// is `permute_weight_gradient`. Where SwiGLU applies the routing weight, move it with `weights_to_rows` and back.
// Matrices may have strided rows. No result depends on the number of workers.
#pragma once

#include <span>

#include "kernels/base/device.h"
#include "kernels/base/tensor.h"
#include "kernels/base/variant.h"

namespace shoestring {

/// The plan of one routing decision; borrowed memory. rows = offsets[experts] <= most_rows(tokens * k, ...).
struct Permutation {
  TensorView counts{};       ///< [experts] i64: slots of each expert
  TensorView offsets{};      ///< [experts + 1] i64: expert e owns the rows [offsets[e], offsets[e + 1])
  TensorView row_of_slot{};  ///< [tokens * k] i32, -1 for a slot without expert
  TensorView slot_of_row{};  ///< [most_rows] i32, -1 for a row of no slot and past the last row
};

/// Rows of a plan of `slots` slots at most, when those of each expert begin at a multiple of `multiple`.
inline std::int64_t most_rows(std::int64_t slots, std::int64_t experts, std::int64_t multiple) {
  return slots + experts * (multiple - 1);
}

/// Owns a plan's memory.
class PermutationStorage {
 public:
  PermutationStorage(std::int64_t tokens, std::int64_t k, std::int64_t experts, Device device = {},
                     std::int64_t multiple = 1);
  Permutation view() { return {counts_, offsets_, row_of_slot_, slot_of_row_}; }

 private:
  Tensor counts_, offsets_, row_of_slot_, slot_of_row_;
};

/// Fills `plan` from indices [tokens, k] i32. Indices outside [0, experts) mean "no row here" (an expert of another
/// rank, a padded token). Each expert owns a number of rows that `multiple` divides: its slots' and as few as will do.
void plan_permutation(const Permutation& plan, ConstTensorView indices, Stream& stream, std::int64_t multiple = 1);
struct PlanPermutationArgs {
  Permutation plan{};
  ConstTensorView indices{};
  Stream& stream;
  std::int64_t multiple = 1;
};

struct GatherRowsArgs {
  TensorView xp{};      ///< [rows or more, hidden], overwritten; rows of no slot get 0
  ConstTensorView x{};  ///< [tokens, hidden]; any format when there are no weights (bytes are copied: FP8, scales)
  Permutation plan{};
  ConstTensorView weights{};  ///< [tokens, k] f32 (f64), or empty
  Stream& stream;
};
void gather_rows(const GatherRowsArgs& args);

struct CombineRowsArgs {
  TensorView y{};        ///< [tokens, hidden], overwritten or added to; f32, bf16 or f64. A token without rows gets 0
  ConstTensorView yp{};  ///< [rows, hidden]; the format of y
  Permutation plan{};
  ConstTensorView weights{};  ///< [tokens, k] f32 (f64), or empty
  bool accumulate = false;    ///< y += instead of y =: y is the first term of the sum, rounded once
  Stream& stream;
};
void combine_rows(const CombineRowsArgs& args);

/// dweights[t, c] = dot(dy[t], yp[row_of_slot[t * k + c]]); 0 for a slot without row. The gradient of combine's
/// weights; that of gather's is the same with (x, dxp) for (dy, yp).
struct PermuteWeightGradientArgs {
  TensorView dweights{};  ///< [tokens, k] f32 (f64), overwritten
  ConstTensorView dy{};   ///< [tokens, hidden]
  ConstTensorView yp{};   ///< [rows, hidden]
  Permutation plan{};
  Stream& stream;
};
void permute_weight_gradient(const PermuteWeightGradientArgs& args);

/// row_weights[row] = weights[slot], 0 for a row of no slot; both f32 or both f64; row_weights [rows], weights
/// [tokens, k] dense.
void weights_to_rows(TensorView row_weights, ConstTensorView weights, const Permutation& plan, Stream& stream);
/// weights[slot] = row_weights[row], 0 for a slot without row: the gradient of the above.
void weights_to_slots(TensorView weights, ConstTensorView row_weights, const Permutation& plan, Stream& stream);

// The tables, for tests and benchmarks.
std::span<const Variant<PlanPermutationArgs>> plan_permutation_variants();
std::span<const Variant<GatherRowsArgs>> gather_rows_variants();
std::span<const Variant<CombineRowsArgs>> combine_rows_variants();
std::span<const Variant<PermuteWeightGradientArgs>> permute_weight_gradient_variants();

namespace permute {
/// Gather without weights, in any format: what every CPU row does then.
void copy_rows(const GatherRowsArgs& args);
/// Rows per piece of work: some tens of microseconds of it.
inline std::int64_t row_grain(std::int64_t hidden) { return 16384 / (hidden < 1 ? 1 : hidden) + 1; }
}  // namespace permute

// The rows that live in other files.
namespace permute::simd {
std::string refuses(const GatherRowsArgs& args);
std::string refuses(const CombineRowsArgs& args);
void gather(const GatherRowsArgs& args);
void combine(const CombineRowsArgs& args);
}  // namespace permute::simd
namespace permute::cuda {
std::string refuses(const PlanPermutationArgs& args);
void plan(const PlanPermutationArgs& args);
std::string refuses(const GatherRowsArgs& args);
std::string refuses(const CombineRowsArgs& args);
std::string refuses(const PermuteWeightGradientArgs& args);
void gather(const GatherRowsArgs& args);
void combine(const CombineRowsArgs& args);
void weight_gradient(const PermuteWeightGradientArgs& args);
}  // namespace permute::cuda

}  // namespace shoestring
