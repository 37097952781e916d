// Elements of activations in kernels, and sums over the threads of a block in an order that is always the same.
#pragma once

#pragma nv_diag_suppress 554  // a conversion that a requires clause rules out: nvcc takes it for a useless one
#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/base/dtype.h"

namespace shoestring {

__device__ inline float to_single(float x) { return x; }
__device__ inline float to_single(BFloat16 x) { return x; }

/// kThreads numbers, the same sum in every thread: over the lanes of each warp, then over the warps in order. `shared`
/// is [kThreads / 32] and must not be in use by another sum.
template <int kThreads>
__device__ inline float sum_block(float value, float* shared) {
  for (int step = 16; step > 0; step /= 2) value += __shfl_xor_sync(0xFFFFFFFFu, value, step);
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = value;
  __syncthreads();
  float sum = 0;
  for (int warp = 0; warp < kThreads / 32; ++warp) sum += shared[warp];
  return sum;
}
template <int kThreads>
__device__ inline float max_block(float value, float* shared) {
  for (int step = 16; step > 0; step /= 2) value = fmaxf(value, __shfl_xor_sync(0xFFFFFFFFu, value, step));
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = value;
  __syncthreads();
  float most = shared[0];
  for (int warp = 1; warp < kThreads / 32; ++warp) most = fmaxf(most, shared[warp]);
  return most;
}

}  // namespace shoestring
