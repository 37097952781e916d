// Cross-entropy on a CUDA device: a block of threads a row. Maximum and sum are folded in one read of the logits
// (Milakov & Gimelshein), the gradient is a second one. Sums are FP32 in a fixed order: a thread's own columns, lanes,
// warps.
//
// Floors: bytes over the memory's speed, logits read once for the loss and once more, with what is written, for the
// gradient; and two exps a logit, at a quarter of the rate of an FMA.
#include "kernels/cross_entropy.h"
#include "kernels/cuda_elements.cuh"
#include "kernels/cuda_refusals.h"

namespace shoestring::token_loss::cuda {
namespace {

constexpr int kThreads = 512;
constexpr int kStep = kThreads * 4;  // columns that a block looks at in one turn

struct Logits {
  const void* data;
  std::int64_t stride, columns;
  bool aligned;
  const std::int32_t* targets;
  std::int64_t first_id;    ///< of column 0
  std::int64_t vocabulary;  ///< targets lie below it; INT64_MAX where only `finish` knows
};

struct Statistics {
  float* loss;
  float* lse;  ///< or nullptr
  float* running_max;
  float* running_sum;
  float* target_logit;
};

struct Gradient {
  void* data;  ///< nullptr: none
  std::int64_t stride;
  bool aligned;
  float scale;
  const float* weights;  ///< of the rows; nullptr: 1 each

  __device__ float factor(std::int64_t row) const { return weights == nullptr ? scale : scale * weights[row]; }
};

/// Maximum of logits, and the sum of exp(logit - maximum).
struct Folded {
  float highest, sum;
};
__device__ Folded joined(Folded a, Folded b) {
  const float highest = fmaxf(a.highest, b.highest);
  if (highest == -INFINITY) return {highest, a.sum + b.sum};  // nothing yet; a NaN in the sums stays
  return {highest, a.sum * expf(a.highest - highest) + b.sum * expf(b.highest - highest)};
}

template <class T>
__device__ Folded fold_row(const Logits& p, const T* logits, Folded (&shared)[kThreads / 32]) {
  Folded mine{-INFINITY, 0};
  for (std::int64_t j = threadIdx.x * 4; j < p.columns; j += kStep) {
    float x[4];
    load_up_to4(logits + j, p.columns - j, p.aligned, x);
    for (int i = 0; i < 4 && j + i < p.columns; ++i) {
      if (x[i] > mine.highest) {
        mine.sum = mine.sum * expf(mine.highest - x[i]) + 1.0f;
        mine.highest = x[i];
      } else if (x[i] != -INFINITY) {  // NaN comes here, and spoils the sum as it should
        mine.sum += expf(x[i] - mine.highest);
      }
    }
  }
  for (int step = 16; step > 0; step /= 2) {
    const Folded other{__shfl_xor_sync(0xFFFFFFFFu, mine.highest, step), __shfl_xor_sync(0xFFFFFFFFu, mine.sum, step)};
    mine = joined(mine, other);
  }
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = mine;
  __syncthreads();
  Folded all = shared[0];
  for (int warp = 1; warp < kThreads / 32; ++warp) all = joined(all, shared[warp]);
  return all;
}

/// dlogits of a row. A turn's columns are read before any of them is written: narrower gradients may lie in the logits'
/// own memory, ahead of which they never get.
template <class T, class D>
__device__ void write_gradient(const Logits& p, const Gradient& g, const T* logits, std::int64_t row, float lse,
                               std::int64_t target, float scale) {
  D* const to = static_cast<D*>(g.data) + row * g.stride;
  for (std::int64_t first = 0; first < p.columns; first += kStep) {
    const std::int64_t j = first + threadIdx.x * 4;
    float x[4] = {};
    if (j < p.columns) load_up_to4(logits + j, p.columns - j, p.aligned, x);
    for (int i = 0; i < 4; ++i) x[i] = scale * (expf(x[i] - lse) - (j + i == target ? 1.0f : 0.0f));
    __syncthreads();
    if (j < p.columns) store_up_to4(to + j, p.columns - j, g.aligned, x);
  }
}
template <class D>
__device__ void write_zeros(const Logits& p, const Gradient& g, std::int64_t row) {
  const float zeros[4] = {};
  for (std::int64_t j = threadIdx.x * 4; j < p.columns; j += kStep) {
    store_up_to4(static_cast<D*>(g.data) + row * g.stride + j, p.columns - j, g.aligned, zeros);
  }
}

/// A target outside the vocabulary, which a host could refuse, makes loss and gradient NaN: seen, and nobody's memory
/// read.
__device__ bool outside(const Logits& p, std::int64_t target) { return target < -1 || target >= p.vocabulary; }

template <class T, class D>
__global__ void __launch_bounds__(kThreads)
    rows_kernel(const __grid_constant__ Logits p, const __grid_constant__ Statistics s,
                const __grid_constant__ Gradient g) {
  __shared__ Folded shared[kThreads / 32];
  const std::int64_t row = blockIdx.x;
  const T* logits = static_cast<const T*>(p.data) + row * p.stride;
  const std::int64_t target = p.targets[row];
  const bool wrong = outside(p, target);
  const float target_logit = target >= 0 && !wrong ? to_single(logits[target]) : nanf("");
  const Folded folded = fold_row(p, logits, shared);
  const float lse = folded.highest + logf(folded.sum);
  if (threadIdx.x == 0) {
    if (s.lse != nullptr) s.lse[row] = lse;
    s.loss[row] = target == -1 ? 0.0f : lse - target_logit;
  }
  if (g.data == nullptr) return;
  if (target == -1) return write_zeros<D>(p, g, row);
  // The barrier of fold_row stands between every thread's look at its target's logit and this.
  write_gradient<T, D>(p, g, logits, row, lse, target, wrong ? nanf("") : g.factor(row));
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    chunk_kernel(const __grid_constant__ Logits p, const __grid_constant__ Statistics s) {
  __shared__ Folded shared[kThreads / 32];
  const std::int64_t row = blockIdx.x;
  const T* logits = static_cast<const T*>(p.data) + row * p.stride;
  const Folded folded = fold_row(p, logits, shared);
  if (threadIdx.x != 0) return;
  const Folded all = joined({s.running_max[row], s.running_sum[row]}, folded);
  s.running_max[row] = all.highest;
  s.running_sum[row] = all.sum;
  const std::int64_t column = p.targets[row] - p.first_id;
  if (column >= 0 && column < p.columns) s.target_logit[row] = to_single(logits[column]);
}

template <class T, class D>
__global__ void __launch_bounds__(kThreads)
    chunk_gradient_kernel(const __grid_constant__ Logits p, const float* lse, const __grid_constant__ Gradient g) {
  const std::int64_t row = blockIdx.x;
  const T* logits = static_cast<const T*>(p.data) + row * p.stride;
  const std::int64_t target = p.targets[row];
  if (target < 0) return write_zeros<D>(p, g, row);
  write_gradient<T, D>(p, g, logits, row, lse[row], target - p.first_id, g.factor(row));
}

__global__ void __launch_bounds__(kElementThreads)
    finish_kernel(const __grid_constant__ Logits p, const __grid_constant__ Statistics s, std::int64_t rows) {
  const std::int64_t row = first_element();
  if (row >= rows) return;
  const std::int64_t target = p.targets[row];
  const float lse = s.running_max[row] + logf(s.running_sum[row]);
  const float loss = target == -1 ? 0.0f : outside(p, target) ? nanf("") : lse - s.target_logit[row];
  s.lse[row] = lse;
  s.loss[row] = loss;
}

/// What the trained rows add to; nullptr where nobody asks.
struct Totals {
  double* loss;
  double* weight;
  std::int64_t* count;
};

/// Adds the trained rows in row order: one warp reads, lane 0's sums are everybody's. A product of two singles is exact
/// in double, so the sums have the bits of the CPU's.
__global__ void __launch_bounds__(32)
    totals_kernel(const __grid_constant__ Totals totals, const float* loss, const float* weights,
                  const std::int32_t* targets, std::int64_t rows) {
  double sum = 0;
  double weight_sum = 0;
  std::int64_t trained = 0;
  for (std::int64_t first = 0; first < rows; first += 32) {
    const std::int64_t row = first + threadIdx.x;
    const bool yes = row < rows && targets[row] != -1;
    const float weight = !yes ? 0.0f : weights == nullptr ? 1.0f : weights[row];
    const float mine = yes ? loss[row] : 0.0f;
    trained += __popc(__ballot_sync(0xFFFFFFFFu, yes));
    for (int lane = 0; lane < 32; ++lane) {  // zeros change nothing
      const double of_lane = __shfl_sync(0xFFFFFFFFu, weight, lane);
      sum += of_lane * __shfl_sync(0xFFFFFFFFu, mine, lane);
      weight_sum += of_lane;
    }
  }
  if (threadIdx.x != 0) return;
  if (totals.loss != nullptr) *totals.loss += sum;
  if (totals.weight != nullptr) *totals.weight += weight_sum;
  if (totals.count != nullptr) *totals.count += trained;
}

// ---- the host's side

Logits logits_of(ConstTensorView logits, ConstTensorView targets, std::int64_t first_id, std::int64_t vocabulary) {
  return {logits.data,
          logits.strides[0],
          logits.shape[1],
          rows_of_four(logits.data, logits.strides[0], size_bytes(logits.dtype)),
          targets.as<std::int32_t>(),
          first_id,
          vocabulary};
}

Gradient gradient_of(TensorView dlogits, double scale, ConstTensorView weights) {
  if (dlogits.empty()) return {};
  return {dlogits.data, dlogits.strides[0], rows_of_four(dlogits.data, dlogits.strides[0], size_bytes(dlogits.dtype)),
          static_cast<float>(scale), weights.as<float>()};
}

Launch by_row(ConstTensorView logits, const Stream& stream) {
  return {static_cast<unsigned>(logits.shape[0]), kThreads, cuda_stream(stream)};
}

template <class Args>
void add_totals(const Args& args) {
  const Totals totals{args.loss_sum.template as<double>(), args.weight_sum.template as<double>(),
                      args.count.template as<std::int64_t>()};
  if (totals.loss == nullptr && totals.weight == nullptr && totals.count == nullptr) return;
  launch("cross_entropy: totals", totals_kernel, {1, 32, cuda_stream(args.stream)}, totals,
         ConstTensorView(args.loss).template as<float>(), args.weights.template as<float>(),
         args.targets.template as<std::int32_t>(), args.targets.shape[0]);
}

}  // namespace

std::string refuses(const CrossEntropyArgs& args) {
  return needs_cuda(args.stream, {args.logits, args.loss, args.lse, args.loss_sum, args.weight_sum, args.count,
                                  args.dlogits, args.targets, args.weights});
}
std::string refuses(const CrossEntropyChunkArgs& args) {
  return needs_cuda(args.stream, {args.logits, args.running_max, args.running_sum, args.target_logit, args.targets});
}
std::string refuses(const CrossEntropyFinishArgs& args) {
  return needs_cuda(args.stream, {args.running_max, args.running_sum, args.target_logit, args.lse, args.loss,
                                  args.loss_sum, args.weight_sum, args.count, args.targets, args.weights});
}
std::string refuses(const CrossEntropyChunkGradientArgs& args) {
  return needs_cuda(args.stream, {args.logits, args.dlogits, args.lse, args.targets, args.weights});
}

void rows(const CrossEntropyArgs& args) {
  const bool narrow = !args.dlogits.empty() && args.dlogits.dtype == DType::bf16;
  const auto kernel = args.logits.dtype == DType::bf16 ? rows_kernel<BFloat16, BFloat16>
                      : narrow                         ? rows_kernel<float, BFloat16>
                                                       : rows_kernel<float, float>;
  launch("cross_entropy", kernel, by_row(args.logits, args.stream),
         logits_of(args.logits, args.targets, 0, args.logits.shape[1]),
         Statistics{args.loss.as<float>(), args.lse.as<float>(), nullptr, nullptr, nullptr},
         gradient_of(args.dlogits, args.scale, args.weights));
  add_totals(args);
}

void chunk(const CrossEntropyChunkArgs& args) {
  launch("cross_entropy_chunk", args.logits.dtype == DType::f32 ? chunk_kernel<float> : chunk_kernel<BFloat16>,
         by_row(args.logits, args.stream), logits_of(args.logits, args.targets, args.first_id, INT64_MAX),
         Statistics{nullptr, nullptr, args.running_max.as<float>(), args.running_sum.as<float>(),
                    args.target_logit.as<float>()});
}

void finish(const CrossEntropyFinishArgs& args) {
  Logits logits{};
  logits.targets = args.targets.as<std::int32_t>();
  logits.vocabulary = args.vocabulary;
  const std::int64_t rows = args.targets.shape[0];
  launch(
      "cross_entropy_finish", finish_kernel, over_elements(rows, args.stream), logits,
      Statistics{args.loss.as<float>(), args.lse.as<float>(), const_cast<float*>(args.running_max.as<float>()),
                 const_cast<float*>(args.running_sum.as<float>()), const_cast<float*>(args.target_logit.as<float>())},
      rows);
  add_totals(args);
}

void chunk_gradient(const CrossEntropyChunkGradientArgs& args) {
  const bool narrow = args.dlogits.dtype == DType::bf16;
  const auto kernel = args.logits.dtype == DType::bf16 ? chunk_gradient_kernel<BFloat16, BFloat16>
                      : narrow                         ? chunk_gradient_kernel<float, BFloat16>
                                                       : chunk_gradient_kernel<float, float>;
  launch("cross_entropy_chunk_gradient", kernel, by_row(args.logits, args.stream),
         logits_of(args.logits, args.targets, args.first_id, INT64_MAX), args.lse.as<float>(),
         gradient_of(args.dlogits, args.scale, args.weights));
}

}  // namespace shoestring::token_loss::cuda
