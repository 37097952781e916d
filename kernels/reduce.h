// Sums, maxima and scaled adds over flat spans, with one fixed order of summation.
//
// The order is part of the contract and depends on the length alone: the span is cut into at most 1024 equal blocks
// (multiples of 4096 elements); in a block, 32 running sums in double take every 32nd element; they, and then the
// blocks, are added pairwise (2i with 2i + 1, until one is left). Every variant and any number of workers gives the
// same bits. Formats: f32, bf16 or f64; spans are dense, of any shape. Elementwise results are rounded once.
#pragma once

#include <span>

#include "kernels/base/device.h"
#include "kernels/base/tensor.h"
#include "kernels/base/variant.h"

namespace shoestring {

/// sum x_i^2, for a norm.
double sum_of_squares(ConstTensorView x, Stream& stream);
/// sum x_i.
double sum(ConstTensorView x, Stream& stream);
/// max |x_i|; 0 for an empty span, NaN if any element is NaN.
double max_abs(ConstTensorView x, Stream& stream);
/// Whether no element is NaN or infinite.
bool all_finite(ConstTensorView x, Stream& stream);

enum class ReduceKind : std::uint8_t { sum, sum_of_squares, max_abs };
/// The same into `result`, f64 [1] of the stream's device. `partials`, f64 [reduce::kMaxBlocks] there, is working room
/// that a CPU does without.
void reduce_into(TensorView result, TensorView partials, ReduceKind kind, ConstTensorView x, Stream& stream);

/// out_i = a x_i + b y_i: b y_i in float (double for f64), added with one rounding of the fused sum, then rounded to
/// out's format. Each is f32 or bf16, or all are f64; out may be x or y.
void axpby(TensorView out, double a, ConstTensorView x, double b, ConstTensorView y, Stream& stream);
/// The same with b = 1 into y: a residual add, an accumulation.
void axpy(TensorView y, double a, ConstTensorView x, Stream& stream);
/// out_i = a x_i.
void scale(TensorView out, double a, ConstTensorView x, Stream& stream);
/// out_i = x_i, rounded once to out's format.
void convert(TensorView out, ConstTensorView x, Stream& stream);
/// out_i = x_i / (sqrt(squares) + eps), the factor rounded once: `squares`, f64 [1] of the stream's device, is the sum
/// of x_i^2 as reduce_into leaves it.
void normalise(TensorView out, ConstTensorView x, ConstTensorView squares, double eps, Stream& stream);

// What the tables run: one reduction to a number, or one elementwise update.
struct ReduceArgs {
  TensorView result{};    ///< f64 [1], overwritten
  TensorView partials{};  ///< f64 [kMaxBlocks], or empty on a CPU
  ConstTensorView x{};    ///< [n]
  ReduceKind kind;
  Stream& stream;
};
struct AxpbyArgs {
  TensorView out{};  ///< [n]
  double a;
  ConstTensorView x{};  ///< [n]
  double b = 0;
  ConstTensorView y{};        ///< [n], or empty: out = a x
  ConstTensorView squares{};  ///< f64 [1]: a is 1 / (sqrt(squares) + eps) instead; or empty
  double eps = 0;
  Stream& stream;
};
std::span<const Variant<ReduceArgs>> reduce_variants();
std::span<const Variant<AxpbyArgs>> axpby_variants();

namespace reduce {
inline constexpr std::int64_t kBlockGrain = 4096;
inline constexpr std::int64_t kMaxBlocks = 1024;
inline constexpr int kSums = 32;
inline constexpr std::int64_t kAxpbyGrain = 16384;

/// Elements per block for a span of `count`.
inline std::int64_t block_elements(std::int64_t count) {
  const std::int64_t grains = (count + kBlockGrain - 1) / kBlockGrain;
  return (grains + kMaxBlocks - 1) / kMaxBlocks * kBlockGrain;
}
/// Adds 2i and 2i + 1 until one is left, in place.
double pairwise_sum(std::span<double> terms);
/// The frame of every CPU row: block_value(args, begin, count) of each block on the stream's workers, then combined.
void over_blocks(const ReduceArgs& args, double (*block_value)(const ReduceArgs&, std::int64_t, std::int64_t));

namespace simd {
std::string refuses(const ReduceArgs& args);
std::string refuses(const AxpbyArgs& args);
void run(const ReduceArgs& args);
void run(const AxpbyArgs& args);
}  // namespace simd
namespace cuda {
std::string refuses(const ReduceArgs& args);
std::string refuses(const AxpbyArgs& args);
void run(const ReduceArgs& args);
void run(const AxpbyArgs& args);
}  // namespace cuda
}  // namespace reduce

}  // namespace shoestring
