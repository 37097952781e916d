// RMSNorm on a CUDA device. One warp per row where rows are short (QK-norm), one block of threads per row otherwise;
// sums are FP32 in a fixed order: a thread's own elements, then lanes, then warps.
#pragma nv_diag_suppress 554  // a conversion that a requires clause rules out: nvcc takes it for a useless one
#include "kernels/base/launch.cuh"
#include "kernels/cuda_refusals.h"
#include "kernels/rms_norm.h"
#include "kernels/rms_norm_rows.h"

namespace shoestring::rms_norm::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
constexpr int kShortRow = 512;  // up to here a warp takes a row
constexpr int kColumns = 32;    // of the weight gradient that one block sums

/// Rows of a [tokens, hidden] or [tokens, heads, dim] tensor, or one number per row; data == nullptr when absent.
struct DeviceRows {
  void* data;
  unsigned inner;  ///< rows in the second dim: heads, or 1
  std::int64_t outer_stride;
  std::int64_t inner_stride;
  __device__ std::int64_t at(std::int64_t row) const {
    if (inner == 1) return row * outer_stride;
    const auto r = static_cast<unsigned>(row);  // a division of 64 bits costs some 40 instructions
    return r / inner * outer_stride + r % inner * inner_stride;
  }
};

struct ForwardParameters {
  DeviceRows y, rstd, x, residual, sum;
  const float* gamma;
  std::int64_t rows, width;
  float eps;
};
struct InputGradientParameters {
  DeviceRows dx, dy, x, rstd;
  const float* gamma;
  std::int64_t rows, width;
  bool accumulate;
};
struct WeightGradientParameters {
  float* dgamma;
  float* partials;  ///< [row blocks, width], or nullptr
  DeviceRows dy, x, rstd;
  std::int64_t rows, width;
};

__device__ float load(const float* x) { return *x; }
__device__ float load(const BFloat16* x) { return *x; }

/// Sum over the threads that share a row: a warp, or the block. Once in a kernel: `shared` is written once.
template <bool kWarp>
__device__ float sum_row(float value, float* shared) {
  for (int step = 16; step > 0; step /= 2) value += __shfl_xor_sync(0xFFFFFFFFu, value, step);
  if constexpr (kWarp) return value;
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = value;
  __syncthreads();
  float sum = 0;
  for (int warp = 0; warp < kWarps; ++warp) sum += shared[warp];
  return sum;
}

/// The row this thread works on, its place in it, and how many work beside it.
template <bool kWarp>
struct Place {
  std::int64_t row = kWarp ? static_cast<std::int64_t>(blockIdx.x) * kWarps + threadIdx.x / 32 : blockIdx.x;
  std::int64_t first = kWarp ? threadIdx.x % 32 : threadIdx.x;
  static constexpr std::int64_t step = kWarp ? 32 : kThreads;
};

template <class T, bool kWarp>
__global__ void __launch_bounds__(kThreads) forward_kernel(const __grid_constant__ ForwardParameters p) {
  __shared__ float shared[kWarps];
  const Place<kWarp> place;
  if (place.row >= p.rows) return;
  const T* x = static_cast<const T*>(p.x.data) + p.x.at(place.row);
  const T* residual =
      p.residual.data == nullptr ? nullptr : static_cast<const T*>(p.residual.data) + p.residual.at(place.row);
  T* sum = p.sum.data == nullptr ? nullptr : static_cast<T*>(p.sum.data) + p.sum.at(place.row);
  float squares = 0;
  for (std::int64_t j = place.first; j < p.width; j += place.step) {
    float s = load(x + j);
    if (residual != nullptr) {
      const T rounded = T(s + load(residual + j));
      sum[j] = rounded;
      s = load(&rounded);
    }
    squares = fmaf(s, s, squares);
  }
  const float mean = sum_row<kWarp>(squares, shared) / static_cast<float>(p.width);
  const float rstd = 1.0f / sqrtf(mean + p.eps);
  if (place.first == 0 && p.rstd.data != nullptr) static_cast<float*>(p.rstd.data)[p.rstd.at(place.row)] = rstd;
  const T* normalised = sum != nullptr ? sum : x;
  if (p.y.data == nullptr) return;  // rms_norm_quantize asks for the statistic and the sum alone
  T* y = static_cast<T*>(p.y.data) + p.y.at(place.row);
  for (std::int64_t j = place.first; j < p.width; j += place.step) {
    y[j] = T(load(normalised + j) * rstd * p.gamma[j]);
  }
}

template <class T, bool kWarp>
__global__ void __launch_bounds__(kThreads) input_gradient_kernel(const __grid_constant__ InputGradientParameters p) {
  __shared__ float shared[kWarps];
  const Place<kWarp> place;
  if (place.row >= p.rows) return;
  const T* x = static_cast<const T*>(p.x.data) + p.x.at(place.row);
  const T* dy = static_cast<const T*>(p.dy.data) + p.dy.at(place.row);
  T* dx = static_cast<T*>(p.dx.data) + p.dx.at(place.row);
  const float rstd = static_cast<const float*>(p.rstd.data)[p.rstd.at(place.row)];
  float products = 0;
  for (std::int64_t j = place.first; j < p.width; j += place.step) {
    products = fmaf(load(dy + j) * p.gamma[j], load(x + j) * rstd, products);
  }
  const float mean = sum_row<kWarp>(products, shared) / static_cast<float>(p.width);
  for (std::int64_t j = place.first; j < p.width; j += place.step) {
    float gradient = rstd * (load(dy + j) * p.gamma[j] - load(x + j) * rstd * mean);
    if (p.accumulate) gradient += load(dx + j);
    dx[j] = T(gradient);
  }
}

/// The sum over one block of rows, in warp 0: a warp takes every eighth row, and warps are added in order.
template <class T>
__device__ float sum_row_block(const WeightGradientParameters& p, std::int64_t first, std::int64_t column,
                               float (*part)[kColumns + 1]) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const std::int64_t end = min(p.rows, first + kRmsNormRowBlock);
  float sum = 0;
  for (std::int64_t row = first + warp; row < end && column < p.width; row += kWarps) {
    const float dy = load(static_cast<const T*>(p.dy.data) + p.dy.at(row) + column);
    const float x = load(static_cast<const T*>(p.x.data) + p.x.at(row) + column);
    sum = fmaf(dy, x * static_cast<const float*>(p.rstd.data)[p.rstd.at(row)], sum);
  }
  part[warp][lane] = sum;
  __syncthreads();
  float block = 0;
  for (int w = 0; warp == 0 && w < kWarps; ++w) block += part[w][lane];
  return block;
}

/// One block of threads sums 32 columns: over one block of rows each into `partials`, or over all of them in order.
/// The sum's order depends on neither the grid nor the device.
template <class T>
__global__ void __launch_bounds__(kThreads) weight_gradient_kernel(const __grid_constant__ WeightGradientParameters p) {
  __shared__ float part[kWarps][kColumns + 1];
  const std::int64_t column = static_cast<std::int64_t>(blockIdx.x) * kColumns + threadIdx.x % 32;
  const bool writes = threadIdx.x < 32 && column < p.width;
  if (p.partials != nullptr) {
    const float sum = sum_row_block<T>(p, blockIdx.y * kRmsNormRowBlock, column, part);
    if (writes) p.partials[blockIdx.y * p.width + column] = sum;
    return;
  }
  float total = 0;
  for (std::int64_t first = 0; first < p.rows; first += kRmsNormRowBlock) {
    total += sum_row_block<T>(p, first, column, part);
    __syncthreads();  // before the next block of rows overwrites its parts
  }
  if (writes) p.dgamma[column] += total;
}

__global__ void __launch_bounds__(kThreads) add_partials_kernel(const __grid_constant__ WeightGradientParameters p) {
  const std::int64_t column = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (column >= p.width) return;
  float total = 0;
  const std::int64_t blocks = (p.rows + kRmsNormRowBlock - 1) / kRmsNormRowBlock;
  for (std::int64_t block = 0; block < blocks; ++block) total += p.partials[block * p.width + column];
  p.dgamma[column] += total;
}

DeviceRows rows_of(const ConstTensorView& view, int tail) {
  if (view.empty()) return {nullptr, 1, 0, 0};
  const bool heads = view.shape.rank() - tail == 2;
  return {const_cast<void*>(view.data), heads ? static_cast<unsigned>(view.shape[1]) : 1u, view.strides[0],
          heads ? view.strides[1] : 0};
}

unsigned blocks_of(std::int64_t count, std::int64_t per_block) {
  return static_cast<unsigned>((count + per_block - 1) / per_block);
}

Launch by_row(std::int64_t rows, std::int64_t width, const Stream& stream) {
  return {blocks_of(rows, width <= kShortRow ? kWarps : 1), kThreads, cuda_stream(stream)};
}

std::string refuses_rows(std::string reason, ConstTensorView x) {
  if (reason.empty() && row_count(x) > INT32_MAX) return "more than 2^31 - 1 rows";
  return reason;
}

}  // namespace

std::string refuses(const RmsNormArgs& args) {
  return refuses_rows(needs_cuda(args.stream, {args.x, args.y, args.rstd, args.gamma, args.residual, args.sum}),
                      args.x);
}
std::string refuses(const RmsNormInputGradientArgs& args) {
  return refuses_rows(needs_cuda(args.stream, {args.x, args.dx, args.dy, args.gamma, args.rstd}), args.x);
}
std::string refuses(const RmsNormWeightGradientArgs& args) {
  return refuses_rows(needs_cuda(args.stream, {args.x, args.dgamma, args.dy, args.rstd, args.partials}), args.x);
}

void forward(const RmsNormArgs& args) {
  const ForwardParameters p{rows_of(args.y, 1),        rows_of(args.rstd, 0), rows_of(args.x, 1),
                            rows_of(args.residual, 1), rows_of(args.sum, 1),  args.gamma.as<float>(),
                            row_count(args.x),         row_width(args.x),     args.eps};
  const bool warp = p.width <= kShortRow;
  const auto kernel = args.x.dtype == DType::f32
                          ? (warp ? forward_kernel<float, true> : forward_kernel<float, false>)
                          : (warp ? forward_kernel<BFloat16, true> : forward_kernel<BFloat16, false>);
  launch("rms_norm forward", kernel, by_row(p.rows, p.width, args.stream), p);
}

void input_gradient(const RmsNormInputGradientArgs& args) {
  const InputGradientParameters p{rows_of(args.dx, 1),   rows_of(args.dy, 1),    rows_of(args.x, 1),
                                  rows_of(args.rstd, 0), args.gamma.as<float>(), row_count(args.x),
                                  row_width(args.x),     args.accumulate};
  const bool warp = p.width <= kShortRow;
  const auto kernel = args.x.dtype == DType::f32
                          ? (warp ? input_gradient_kernel<float, true> : input_gradient_kernel<float, false>)
                          : (warp ? input_gradient_kernel<BFloat16, true> : input_gradient_kernel<BFloat16, false>);
  launch("rms_norm input gradient", kernel, by_row(p.rows, p.width, args.stream), p);
}

void weight_gradient(const RmsNormWeightGradientArgs& args) {
  const WeightGradientParameters p{args.dgamma.as<float>(), args.partials.as<float>(), rows_of(args.dy, 1),
                                   rows_of(args.x, 1),      rows_of(args.rstd, 0),     row_count(args.x),
                                   row_width(args.x)};
  const cudaStream_t stream = cuda_stream(args.stream);
  const unsigned row_blocks = p.partials == nullptr ? 1 : blocks_of(p.rows, kRmsNormRowBlock);
  launch("rms_norm weight gradient",
         args.x.dtype == DType::f32 ? weight_gradient_kernel<float> : weight_gradient_kernel<BFloat16>,
         {dim3(blocks_of(p.width, kColumns), row_blocks), kThreads, stream}, p);
  if (p.partials == nullptr) return;
  launch("rms_norm weight gradient", add_partials_kernel, {blocks_of(p.width, kThreads), kThreads, stream}, p);
}

}  // namespace shoestring::rms_norm::cuda
