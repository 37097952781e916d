// RMSNorm on a CUDA device. One warp per row where rows are short (QK-norm), one block of threads per row otherwise;
// sums are FP32 in a fixed order: a thread's own elements, then lanes, then warps.
#pragma nv_diag_suppress 554  // a conversion that a requires clause rules out: nvcc takes it for a useless one
#include <cuda_runtime.h>

#include "kernels/base/cuda_check.h"
#include "kernels/rms_norm.h"
#include "kernels/rms_norm_cuda.h"

namespace shoestring::rms_norm::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kShortRow = 512;  // up to here a warp takes a row
constexpr int kColumns = 32;    // of the weight gradient that one block sums

__device__ float load(const float* x) { return *x; }
__device__ float load(const BFloat16* x) { return *x; }

/// Sum over the threads that share a row: a warp, or the block.
template <bool kWarp>
__device__ float sum_row(float value, float* shared) {
  for (int step = 16; step > 0; step /= 2) value += __shfl_xor_sync(0xFFFFFFFFu, value, step);
  if constexpr (kWarp) return value;
  __syncthreads();  // the last sum may still be read
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = value;
  __syncthreads();
  float sum = 0;
  for (int warp = 0; warp < kThreads / 32; ++warp) sum += shared[warp];
  return sum;
}

/// The row this thread works on, its place in it, and how many work beside it.
template <bool kWarp>
struct Place {
  std::int64_t row = kWarp ? static_cast<std::int64_t>(blockIdx.x) * (kThreads / 32) + threadIdx.x / 32 : blockIdx.x;
  std::int64_t first = kWarp ? threadIdx.x % 32 : threadIdx.x;
  static constexpr std::int64_t step = kWarp ? 32 : kThreads;
};

template <class T, bool kWarp>
__global__ void __launch_bounds__(kThreads) forward_kernel(const __grid_constant__ ForwardParameters p) {
  __shared__ float shared[kThreads / 32];
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
  T* y = static_cast<T*>(p.y.data) + p.y.at(place.row);
  for (std::int64_t j = place.first; j < p.width; j += place.step) {
    y[j] = T(load(normalised + j) * rstd * p.gamma[j]);
  }
}

template <class T, bool kWarp>
__global__ void __launch_bounds__(kThreads) input_gradient_kernel(const __grid_constant__ InputGradientParameters p) {
  __shared__ float shared[kThreads / 32];
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

/// One block of threads sums 32 columns over all rows. Of each kRmsNormRowBlock rows a warp takes every eighth; warps
/// are added in order, then row blocks in order: the sum's order depends on neither the grid nor the device.
template <class T>
__global__ void __launch_bounds__(kThreads) weight_gradient_kernel(const __grid_constant__ WeightGradientParameters p) {
  __shared__ float part[kThreads / 32][kColumns + 1];
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const std::int64_t column = static_cast<std::int64_t>(blockIdx.x) * kColumns + lane;
  float total = 0;
  for (std::int64_t first = 0; first < p.rows; first += kRmsNormRowBlock) {
    const std::int64_t end = min(p.rows, first + kRmsNormRowBlock);
    float sum = 0;
    for (std::int64_t row = first + warp; row < end && column < p.width; row += kThreads / 32) {
      const float dy = load(static_cast<const T*>(p.dy.data) + p.dy.at(row) + column);
      const float x = load(static_cast<const T*>(p.x.data) + p.x.at(row) + column);
      const float rstd = static_cast<const float*>(p.rstd.data)[p.rstd.at(row)];
      sum = fmaf(dy, x * rstd, sum);
    }
    part[warp][lane] = sum;
    __syncthreads();
    if (warp == 0) {
      float block = 0;
      for (int w = 0; w < kThreads / 32; ++w) block += part[w][lane];
      total += block;
    }
    __syncthreads();
  }
  if (warp == 0 && column < p.width) p.dgamma[column] += total;
}

unsigned blocks_for(std::int64_t rows, std::int64_t width) {
  constexpr std::int64_t kRows = kThreads / 32;
  return static_cast<unsigned>(width <= kShortRow ? (rows + kRows - 1) / kRows : rows);
}

}  // namespace

void launch(const ForwardParameters& p, DType dtype, cudaStream_t stream) {
  const unsigned blocks = blocks_for(p.rows, p.width);
  const bool warp = p.width <= kShortRow;
  if (dtype == DType::f32) {
    warp ? forward_kernel<float, true><<<blocks, kThreads, 0, stream>>>(p)
         : forward_kernel<float, false><<<blocks, kThreads, 0, stream>>>(p);
  } else {
    warp ? forward_kernel<BFloat16, true><<<blocks, kThreads, 0, stream>>>(p)
         : forward_kernel<BFloat16, false><<<blocks, kThreads, 0, stream>>>(p);
  }
  cuda_check(cudaGetLastError(), "rms_norm forward kernel");
}

void launch(const InputGradientParameters& p, DType dtype, cudaStream_t stream) {
  const unsigned blocks = blocks_for(p.rows, p.width);
  const bool warp = p.width <= kShortRow;
  if (dtype == DType::f32) {
    warp ? input_gradient_kernel<float, true><<<blocks, kThreads, 0, stream>>>(p)
         : input_gradient_kernel<float, false><<<blocks, kThreads, 0, stream>>>(p);
  } else {
    warp ? input_gradient_kernel<BFloat16, true><<<blocks, kThreads, 0, stream>>>(p)
         : input_gradient_kernel<BFloat16, false><<<blocks, kThreads, 0, stream>>>(p);
  }
  cuda_check(cudaGetLastError(), "rms_norm input gradient kernel");
}

void launch(const WeightGradientParameters& p, DType dtype, cudaStream_t stream) {
  const auto blocks = static_cast<unsigned>((p.width + kColumns - 1) / kColumns);
  dtype == DType::f32 ? weight_gradient_kernel<float><<<blocks, kThreads, 0, stream>>>(p)
                      : weight_gradient_kernel<BFloat16><<<blocks, kThreads, 0, stream>>>(p);
  cuda_check(cudaGetLastError(), "rms_norm weight gradient kernel");
}

}  // namespace shoestring::rms_norm::cuda
