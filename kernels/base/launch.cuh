// How a kernel is started, and what it needs of a device beyond CUDA C++: the one header where device primitives join
// (named barriers now; mbarrier, TMA and wgmma later), so that an emulator has one place to offer its own. For .cu
// files.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <utility>

#include "kernels/base/cuda_check.h"

namespace shoestring {

struct Launch {
  dim3 blocks;
  dim3 threads;
  cudaStream_t stream;
  std::size_t dynamic_shared_bytes = 0;
};

/// Starts `kernel` on the arguments; `what` names it where the device refuses.
template <class... Parameters, class... Given>
void launch(const char* what, void (*kernel)(Parameters...), const Launch& at, Given&&... arguments) {
  cudaLaunchConfig_t config{};
  config.gridDim = at.blocks;
  config.blockDim = at.threads;
  config.dynamicSmemBytes = at.dynamic_shared_bytes;
  config.stream = at.stream;
  cuda_check(cudaLaunchKernelEx(&config, kernel, std::forward<Given>(arguments)...), what);
}

#if defined(__CUDACC__)
/// The block's dynamic shared memory, aligned to 16 bytes.
__device__ inline void* dynamic_shared() {
  extern __shared__ __align__(16) unsigned char shoestring_dynamic_shared[];
  return shoestring_dynamic_shared;
}

/// Waits until `threads` threads (a multiple of 32) of the block have come to barrier `id`, 1 to 15.
__device__ inline void named_barrier(int id, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

/// What others change by atomics meanwhile.
__device__ inline unsigned relaxed_load(const unsigned* at) { return *const_cast<const volatile unsigned*>(at); }
#endif

}  // namespace shoestring
