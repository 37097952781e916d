// Turns a CUDA status into an Error. For .cpp and .cu files of the CUDA build only.
#pragma once

#include <cuda_runtime_api.h>

namespace shoestring {

/// Throws Error(bug) naming the call, or Error(io) for memory that ran out.
void cuda_check(cudaError_t status, const char* call);

class Stream;
/// The CUDA stream behind `stream`, whose device becomes this thread's current one: launches go there.
cudaStream_t cuda_stream(const Stream& stream);

}  // namespace shoestring
