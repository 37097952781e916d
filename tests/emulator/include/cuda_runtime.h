// Stands for the CUDA toolkit's header of this name: what device code is made of, for g++. `__shared__` arrays are
// statics that the emulator finds in the symbol table; threadIdx and its like ask which fibre runs.
#pragma once

#include <math.h>

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstring>
#include <functional>
#include <tuple>
#include <type_traits>

#include "cuda_runtime_api.h"

#define __global__
#define __device__
#define __host__
#define __grid_constant__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __align__(bytes) __attribute__((aligned(bytes)))
#define __shared__ static

namespace emulator {

struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

/// One number of the place of the thread that reads it.
template <auto kWhich, auto kAxis>
struct Component {
  operator unsigned() const { return here().*kWhich.*kAxis; }
};
template <auto kWhich, class T>
struct Components {
  Component<kWhich, &T::x> x;
  Component<kWhich, &T::y> y;
  Component<kWhich, &T::z> z;
};
inline constexpr Components<&Place::thread, uint3> threadIdx{};
inline constexpr Components<&Place::block, uint3> blockIdx{};
inline constexpr Components<&Place::block_dim, dim3> blockDim{};
inline constexpr Components<&Place::grid_dim, dim3> gridDim{};

struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  std::size_t dynamicSmemBytes = 0;
  cudaStream_t stream = nullptr;
};

template <class T>
std::uint64_t to_bits(T value) {
  static_assert(sizeof(T) <= 8);
  std::uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof value);
  return bits;
}
template <class T>
T from_bits(std::uint64_t bits) {
  T value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}
inline int lane() {
  const Place& p = here();
  return static_cast<int>((p.thread.x + p.block_dim.x * (p.thread.y + p.block_dim.y * p.thread.z)) % 32);
}
/// Over the values of the lanes of `mask`.
template <class T, class Combine>
T fold(std::uint32_t mask, T value, const char* kind, const Where& where, Combine combine) {
  std::uint64_t all[32] = {};
  exchange(mask, to_bits(value), kind, false, where, all);
  bool first = true;
  T result{};
  for (int l = 0; l < 32; ++l) {
    if ((mask >> l & 1u) == 0) continue;
    result = first ? from_bits<T>(all[l]) : combine(result, from_bits<T>(all[l]));
    first = false;
  }
  return result;
}
/// The value of lane `from`, which must take part; `mine` where the lane asks beyond its part of the warp.
template <class T>
T shuffle(std::uint32_t mask, T mine, int from, bool inside, const char* kind, const Where& where) {
  std::uint64_t all[32] = {};
  exchange(mask, to_bits(mine), kind, false, where, all);
  return inside ? from_bits<T>(all[from]) : mine;
}

inline void __syncthreads(Where where = Where::current()) { barrier(0, 0, where); }
inline int __syncthreads_or(int predicate, Where where = Where::current()) {
  return barrier(0, 0, where, predicate != 0) != 0;
}
inline int __syncthreads_count(int predicate, Where where = Where::current()) {
  return barrier(0, 0, where, predicate != 0);
}
inline void named_barrier(int id, int threads, Where where = Where::current()) { barrier(id, threads, where); }
inline void __syncwarp(std::uint32_t mask = 0xFFFFFFFFu, Where where = Where::current()) {
  std::uint64_t all[32] = {};
  exchange(mask, 0, "__syncwarp", true, where, all);
}
template <class T>
T __shfl_sync(std::uint32_t mask, T v, int from, int width = 32, Where where = Where::current()) {
  return shuffle(mask, v, lane() / width * width + (from & (width - 1)), true, "__shfl_sync", where);
}
template <class T>
T __shfl_xor_sync(std::uint32_t mask, T v, int with, int width = 32, Where where = Where::current()) {
  const int from = lane() ^ with;
  return shuffle(mask, v, from, from / width <= lane() / width, "__shfl_xor_sync", where);
}
template <class T>
T __shfl_up_sync(std::uint32_t mask, T v, unsigned by, int width = 32, Where where = Where::current()) {
  const int from = lane() - static_cast<int>(by);
  return shuffle(mask, v, from, from >= lane() / width * width, "__shfl_up_sync", where);
}
template <class T>
T __shfl_down_sync(std::uint32_t mask, T v, unsigned by, int width = 32, Where where = Where::current()) {
  const int from = lane() + static_cast<int>(by);
  return shuffle(mask, v, from, from < (lane() / width + 1) * width, "__shfl_down_sync", where);
}
inline unsigned __reduce_max_sync(std::uint32_t mask, unsigned v, Where where = Where::current()) {
  return fold(mask, v, "__reduce_max_sync", where, [](unsigned a, unsigned b) { return std::max(a, b); });
}
inline unsigned __reduce_min_sync(std::uint32_t mask, unsigned v, Where where = Where::current()) {
  return fold(mask, v, "__reduce_min_sync", where, [](unsigned a, unsigned b) { return std::min(a, b); });
}
inline unsigned __reduce_add_sync(std::uint32_t mask, unsigned v, Where where = Where::current()) {
  return fold(mask, v, "__reduce_add_sync", where, [](unsigned a, unsigned b) { return a + b; });
}
inline unsigned __ballot_sync(std::uint32_t mask, int predicate, Where where = Where::current()) {
  const std::uint32_t mine = predicate != 0 ? 1u << lane() : 0u;
  return fold(mask, mine, "__ballot_sync", where, [](std::uint32_t a, std::uint32_t b) { return a | b; });
}
inline int __any_sync(std::uint32_t mask, int predicate, Where where = Where::current()) {
  return __ballot_sync(mask, predicate, where) != 0;
}
inline int __all_sync(std::uint32_t mask, int predicate, Where where = Where::current()) {
  return __ballot_sync(mask, predicate, where) == mask;
}

template <class T>
T atomicAdd(T* at, std::type_identity_t<T> value) {
  T old = __atomic_load_n(at, __ATOMIC_RELAXED);
  while (
      !__atomic_compare_exchange_n(at, &old, static_cast<T>(old + value), false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
  }
  return old;
}
template <class T>
T atomicMax(T* at, std::type_identity_t<T> value) {
  T old = __atomic_load_n(at, __ATOMIC_RELAXED);
  while (old < value && !__atomic_compare_exchange_n(at, &old, value, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
  }
  return old;
}
inline unsigned relaxed_load(const unsigned* at) { return __atomic_load_n(at, __ATOMIC_RELAXED); }
inline void __threadfence() {}  // fibres of one thread: every write is seen as it is made

inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fsqrt_rn(float a) { return sqrtf(a); }
inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
inline float __expf(float x) { return expf(x); }
inline unsigned __float_as_uint(float x) { return std::bit_cast<unsigned>(x); }
inline float __uint_as_float(unsigned x) { return std::bit_cast<float>(x); }
inline int __popc(unsigned x) { return std::popcount(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __clz(int x) { return std::countl_zero(static_cast<unsigned>(x)); }
inline unsigned __byte_perm(unsigned x, unsigned y, unsigned selector) {
  const std::uint64_t bytes = std::uint64_t{y} << 32 | x;
  unsigned result = 0;
  for (int i = 0; i < 4; ++i) {
    const unsigned pick = selector >> 4 * i & 0xFu;
    unsigned byte = static_cast<unsigned>(bytes >> 8 * (pick & 7u)) & 0xFFu;
    if ((pick & 8u) != 0) byte = (byte & 0x80u) != 0 ? 0xFFu : 0u;
    result |= byte << 8 * i;
  }
  return result;
}

/// The arguments are copied here, as a launch does.
template <class... Expected, class... Given>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Expected...), Given&&... given) {
  enqueue(config->stream, [at = *config, kernel, arguments = std::tuple<Expected...>(given...)] {
    run_grid(at.gridDim, at.blockDim, at.dynamicSmemBytes, reinterpret_cast<const void*>(kernel),
             [&] { std::apply(kernel, arguments); });
  });
  return cudaSuccess;
}

}  // namespace emulator

using std::max;
using std::min;
