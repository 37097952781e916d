#include "tests/emulator/broken_kernels.h"

#include "kernels/base/launch.cuh"

namespace shoestring::broken {
namespace cuda {
namespace {

constexpr int kThreads = 64;

/// y_i = x_j, j being the next thread of the block; through static or dynamic shared memory or a shuffle.
__global__ void rotate_kernel(Fault fault, const float* x, float* y) {
  __shared__ float staging[kThreads];
  auto* dynamic = static_cast<float*>(dynamic_shared());
  const int t = static_cast<int>(threadIdx.x);
  const int i = static_cast<int>(blockIdx.x) * kThreads + t;
  const int next = (t + 1) % kThreads;
  staging[t] = x[i];
  dynamic[t] = x[i];
  if (fault == Fault::absent_at_barrier && t == 5) return;
  if (fault == Fault::divergent_barrier && t >= 32) {
    __syncthreads();
  } else if (fault != Fault::missing_barrier) {
    __syncthreads();
  }
  y[i] = staging[next];
  if (fault == Fault::past_shared && t == 63) y[i] = staging[t + (blockIdx.x == 0 ? 1 : 0)];
  if (fault == Fault::past_dynamic && t == 63) y[i] = dynamic[t + 1];
  if (fault == Fault::past_global && i == static_cast<int>(gridDim.x) * kThreads - 1) y[i] = x[i + 1];
}

/// y_i = x_j, j being the next lane of the warp.
__global__ void rotate_warp_kernel(Fault fault, const float* x, float* y) {
  __shared__ float staging[kThreads];
  const int t = static_cast<int>(threadIdx.x);
  const int i = static_cast<int>(blockIdx.x) * kThreads + t;
  const int lane = t % 32;
  if (fault == Fault::divergent_collective && lane >= 16) return;
  const std::uint32_t mask = fault == Fault::mask_leaves_out ? 0xFFFFu : 0xFFFFFFFFu;
  const float shuffled = __shfl_sync(mask, x[i], (lane + 1) % 32);
  staging[t] = x[i];
  if (fault != Fault::missing_warp_barrier) __syncwarp();
  const float staged = staging[t - lane + (lane + 1) % 32];
  y[i] = staged == shuffled ? staged : -1.0f;
}

__global__ void sum_kernel(Fault fault, const float* x, float* y) {
  __shared__ float sum[kThreads];
  const int t = static_cast<int>(threadIdx.x);
  const float* mine = x + blockIdx.x * kThreads;
  if (fault != Fault::uninitialised) sum[t] = 0;
  if (fault == Fault::misaligned && t == 0) {
    const auto four = *reinterpret_cast<const float4*>(mine + 1);
    sum[t] += four.w;
  }
  sum[t] += mine[t];
  __syncthreads();
  for (int half = kThreads / 2; half > 0; half /= 2) {
    if (t < half) sum[t] += sum[t + half];
    __syncthreads();
  }
  if (t != 0) return;
  if (fault == Fault::order_of_blocks) {
    y[0] = 0.5f * y[0] + sum[0];
  } else {
    y[blockIdx.x] = sum[0];
  }
}

}  // namespace
}  // namespace cuda

void run(Fault fault, const float* x, float* y, int blocks, Stream& stream) {
  const auto kernel = [&] {
    switch (fault) {
      case Fault::missing_warp_barrier:
      case Fault::divergent_collective:
      case Fault::mask_leaves_out: return cuda::rotate_warp_kernel;
      case Fault::uninitialised:
      case Fault::misaligned:
      case Fault::order_of_blocks: return cuda::sum_kernel;
      default: return cuda::rotate_kernel;
    }
  }();
  const Launch at{static_cast<unsigned>(blocks), cuda::kThreads, cuda_stream(stream), cuda::kThreads * sizeof(float)};
  launch("broken", kernel, at, fault, x, y);
}

}  // namespace shoestring::broken
