// Tokens to experts and back on a CUDA device: a block of threads a row, or a token. The sums run as the reference's,
// with its bits; the weights' gradient sums in single precision.
#include "kernels/base/launch.cuh"
#include "kernels/cuda_elements.cuh"
#include "kernels/cuda_refusals.h"
#include "kernels/permute.h"

namespace shoestring::permute::cuda {
namespace {

constexpr int kThreads = 256;

struct Parameters {
  void* tokens;  ///< x, y or dy: [tokens, hidden]
  std::int64_t token_stride;
  void* rows;  ///< xp or yp: [rows, hidden]
  std::int64_t row_stride;
  const std::int32_t* row_of_slot;
  const std::int32_t* slot_of_row;
  void* weights;  ///< [tokens, k] f32, or nullptr
  int k;
  std::int64_t hidden;
  bool accumulate;
};

/// Without weights, in words of Word: any format.
template <class Word>
__global__ void __launch_bounds__(kThreads) copy_kernel(const __grid_constant__ Parameters p) {
  const int slot = p.slot_of_row[blockIdx.x];
  Word* to = static_cast<Word*>(p.rows) + blockIdx.x * p.row_stride;
  const Word* from = static_cast<const Word*>(p.tokens) + (slot < 0 ? 0 : slot / p.k) * p.token_stride;
  for (std::int64_t j = threadIdx.x; j < p.hidden; j += kThreads) to[j] = slot < 0 ? Word{} : from[j];
}

template <class T>
__global__ void __launch_bounds__(kThreads) gather_kernel(const __grid_constant__ Parameters p) {
  const int slot = p.slot_of_row[blockIdx.x];
  const float weight = slot < 0 ? 0.0f : static_cast<const float*>(p.weights)[slot];
  T* to = static_cast<T*>(p.rows) + blockIdx.x * p.row_stride;
  const T* from = static_cast<const T*>(p.tokens) + (slot < 0 ? 0 : slot / p.k) * p.token_stride;
  for (std::int64_t j = threadIdx.x; j < p.hidden; j += kThreads) {
    to[j] = slot < 0 ? T(0.0f) : T(__fmul_rn(weight, to_single(from[j])));
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads) combine_kernel(const __grid_constant__ Parameters p) {
  const std::int64_t first = static_cast<std::int64_t>(blockIdx.x) * p.k;
  T* y = static_cast<T*>(p.tokens) + blockIdx.x * p.token_stride;
  const auto* weights = static_cast<const float*>(p.weights);
  for (std::int64_t j = threadIdx.x; j < p.hidden; j += kThreads) {
    float sum = p.accumulate ? to_single(y[j]) : 0.0f;
    for (std::int64_t slot = first; slot < first + p.k; ++slot) {
      const std::int64_t row = p.row_of_slot[slot];
      if (row < 0) continue;
      const float term = to_single(static_cast<const T*>(p.rows)[row * p.row_stride + j]);
      sum = weights == nullptr ? sum + term : fmaf(weights[slot], term, sum);
    }
    y[j] = T(sum);
  }
}

/// A block a slot.
template <class T>
__global__ void __launch_bounds__(kThreads) weight_gradient_kernel(const __grid_constant__ Parameters p) {
  __shared__ float shared[kThreads / 32];
  const std::int64_t row = p.row_of_slot[blockIdx.x];
  const T* dy = static_cast<const T*>(p.tokens) + blockIdx.x / p.k * p.token_stride;
  const T* yp = static_cast<const T*>(p.rows) + row * p.row_stride;
  float sum = 0;
  for (std::int64_t j = threadIdx.x; row >= 0 && j < p.hidden; j += kThreads) {
    sum = fmaf(to_single(dy[j]), to_single(yp[j]), sum);
  }
  sum = sum_block<kThreads>(sum, shared);
  if (threadIdx.x == 0) static_cast<float*>(p.weights)[blockIdx.x] = sum;
}

Parameters parameters_of(ConstTensorView tokens, ConstTensorView rows, const Permutation& plan,
                         ConstTensorView weights) {
  return {const_cast<void*>(tokens.data),
          tokens.strides[0],
          const_cast<void*>(rows.data),
          rows.strides[0],
          plan.row_of_slot.as<std::int32_t>(),
          plan.slot_of_row.as<std::int32_t>(),
          const_cast<void*>(weights.data),
          tokens.shape[0] == 0 ? 1 : static_cast<int>(plan.row_of_slot.shape[0] / tokens.shape[0]),
          tokens.shape[1],
          false};
}

Launch blocks(std::int64_t count, const Stream& stream) {
  return {static_cast<unsigned>(count), kThreads, cuda_stream(stream)};
}

}  // namespace

std::string refuses(const GatherRowsArgs& args) {
  return needs_cuda(args.stream, {args.xp, args.x, args.plan.slot_of_row, args.weights}, !args.weights.empty());
}
std::string refuses(const CombineRowsArgs& args) {
  return needs_cuda(args.stream, {args.y, args.yp, args.plan.row_of_slot, args.weights});
}
std::string refuses(const PermuteWeightGradientArgs& args) {
  return needs_cuda(args.stream, {args.dy, args.yp, args.plan.row_of_slot, args.dweights});
}

void gather(const GatherRowsArgs& args) {
  const Parameters p = parameters_of(args.x, args.xp, args.plan, args.weights);
  const Launch at = blocks(args.xp.shape[0], args.stream);
  if (!args.weights.empty()) {
    return launch("gather_rows", args.x.dtype == DType::f32 ? gather_kernel<float> : gather_kernel<BFloat16>, at, p);
  }
  switch (size_bytes(args.x.dtype)) {
    case 1: return launch("gather_rows", copy_kernel<std::uint8_t>, at, p);
    case 2: return launch("gather_rows", copy_kernel<std::uint16_t>, at, p);
    case 4: return launch("gather_rows", copy_kernel<std::uint32_t>, at, p);
    default: return launch("gather_rows", copy_kernel<std::uint64_t>, at, p);
  }
}

void combine(const CombineRowsArgs& args) {
  Parameters p = parameters_of(args.y, args.yp, args.plan, args.weights);
  p.accumulate = args.accumulate;
  launch("combine_rows", args.y.dtype == DType::f32 ? combine_kernel<float> : combine_kernel<BFloat16>,
         blocks(args.y.shape[0], args.stream), p);
}

void weight_gradient(const PermuteWeightGradientArgs& args) {
  const Parameters p = parameters_of(args.dy, args.yp, args.plan, args.dweights);
  launch("permute_weight_gradient",
         args.dy.dtype == DType::f32 ? weight_gradient_kernel<float> : weight_gradient_kernel<BFloat16>,
         blocks(args.dweights.elements(), args.stream), p);
}

}  // namespace shoestring::permute::cuda
