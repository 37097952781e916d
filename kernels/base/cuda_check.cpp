#include "kernels/base/cuda_check.h"

#include "kernels/base/check.h"

namespace shoestring {

void cuda_check(cudaError_t status, const char* call) {
  if (status == cudaSuccess) return;
  const ExitCode code = status == cudaErrorMemoryAllocation ? ExitCode::io : ExitCode::bug;
  fail(code, "{} failed: {} ({})", call, cudaGetErrorString(status), static_cast<int>(status));
}

}  // namespace shoestring
