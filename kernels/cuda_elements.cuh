// Elements of activations in kernels, one by one or four neighbours at a time, and sums over the threads of a block in
// an order that is always the same.
#pragma once

#pragma nv_diag_suppress 554  // a conversion that a requires clause rules out: nvcc takes it for a useless one
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>

#include "kernels/base/cuda_check.h"
#include "kernels/base/dtype.h"
#include "kernels/base/launch.cuh"

namespace shoestring {

// ---- a thread an element

inline constexpr int kElementThreads = 256;

/// A grid for `count` elements: thread after thread takes one, and past 2^28 of them several.
inline Launch over_elements(std::int64_t count, const Stream& stream) {
  constexpr std::int64_t kMaxBlocks = 1 << 20;
  const std::int64_t blocks = (count + kElementThreads - 1) / kElementThreads;
  return {static_cast<unsigned>(std::min(blocks, kMaxBlocks)), kElementThreads, cuda_stream(stream)};
}
__device__ inline std::int64_t first_element() {
  return static_cast<std::int64_t>(blockIdx.x) * kElementThreads + threadIdx.x;
}
__device__ inline std::int64_t element_step() { return static_cast<std::int64_t>(gridDim.x) * kElementThreads; }

// ---- elements

__device__ inline float to_single(float x) { return x; }
__device__ inline float to_single(BFloat16 x) { return x; }

/// Four neighbours as one aligned load.
__device__ inline void load4(const float* x, float out[4]) {
  const float4 v = *reinterpret_cast<const float4*>(x);
  out[0] = v.x;
  out[1] = v.y;
  out[2] = v.z;
  out[3] = v.w;
}
__device__ inline void load4(const BFloat16* x, float out[4]) {
  const uint2 v = *reinterpret_cast<const uint2*>(x);
  out[0] = __uint_as_float(v.x << 16);
  out[1] = __uint_as_float(v.x & 0xFFFF0000u);
  out[2] = __uint_as_float(v.y << 16);
  out[3] = __uint_as_float(v.y & 0xFFFF0000u);
}
__device__ inline void store4(float* to, const float v[4]) {
  *reinterpret_cast<float4*>(to) = make_float4(v[0], v[1], v[2], v[3]);
}
__device__ inline void store4(BFloat16* to, const float v[4]) {
  const unsigned low = BFloat16(v[0]).bits | static_cast<unsigned>(BFloat16(v[1]).bits) << 16;
  const unsigned high = BFloat16(v[2]).bits | static_cast<unsigned>(BFloat16(v[3]).bits) << 16;
  *reinterpret_cast<uint2*>(to) = make_uint2(low, high);
}

/// Up to four of the `count` elements from x on, and 0 past them; one load where `aligned`.
template <class T>
__device__ void load_up_to4(const T* x, std::int64_t count, bool aligned, float out[4]) {
  if (aligned && count >= 4) return load4(x, out);
  for (int i = 0; i < 4; ++i) out[i] = i < count ? to_single(x[i]) : 0.0f;
}
template <class T>
__device__ void store_up_to4(T* to, std::int64_t count, bool aligned, const float v[4]) {
  if (aligned && count >= 4) return store4(to, v);
  for (int i = 0; i < 4 && i < count; ++i) to[i] = T(v[i]);
}

/// Whether rows of `stride` elements from `data` on begin where four neighbours can be one load or store.
inline bool rows_of_four(const void* data, std::int64_t stride, std::int64_t element_bytes) {
  return reinterpret_cast<std::uintptr_t>(data) % static_cast<std::uintptr_t>(4 * element_bytes) == 0 &&
         stride % 4 == 0;
}

// ---- over the threads of a block

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
/// The same over the lanes of a warp.
__device__ inline float sum_warp(float value) {
  for (int step = 16; step > 0; step /= 2) value += __shfl_xor_sync(0xFFFFFFFFu, value, step);
  return value;
}

}  // namespace shoestring
