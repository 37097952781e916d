// Turns a CUDA status into an Error. For .cpp and .cu files of the CUDA build only.
#pragma once

#include <cuda_runtime_api.h>

#include "kernels/base/check.h"

namespace shoestring {

/// Throws Error(bug) naming the call, or Error(io) for memory that ran out.
inline void cuda_check(cudaError_t status, const char* call) {
  if (status == cudaSuccess) return;
  const ExitCode code = status == cudaErrorMemoryAllocation ? ExitCode::io : ExitCode::bug;
  fail(code, "{} failed: {} ({})", call, cudaGetErrorString(status), static_cast<int>(status));
}

}  // namespace shoestring
