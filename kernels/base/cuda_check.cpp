#include "kernels/base/cuda_check.h"

#include "kernels/base/check.h"
#include "kernels/base/device.h"

namespace shoestring {

void cuda_check(cudaError_t status, const char* call) {
  if (status == cudaSuccess) return;
  cudaGetLastError();  // said here: the check of the next launch must not find it again
  const ExitCode code = status == cudaErrorMemoryAllocation ? ExitCode::io : ExitCode::bug;
  fail(code, "{} failed: {} ({})", call, cudaGetErrorString(status), static_cast<int>(status));
}

cudaStream_t cuda_stream(const Stream& stream) {
  check(stream.native() != nullptr, "a stream on {} given to a CUDA row", to_string(stream.device()));
  cuda_check(cudaSetDevice(stream.device().index), "cudaSetDevice");
  return static_cast<cudaStream_t>(stream.native());
}

}  // namespace shoestring
