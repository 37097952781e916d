// The kernels behind a grouped product in one call, for grouped_gemm_cublaslt.cpp.
#pragma once

#include <cuda_runtime_api.h>

#include "kernels/grouped_gemm_plan.h"

namespace shoestring::gemm_detail::cublaslt::cuda {

/// Fills `setup.arrays`, and `setup.scale_rows.to` and the offsets where they are not there yet. Offsets that are there
/// already are read when `stream` comes to it.
void write_arrays(const GroupedSetup& setup, cudaStream_t stream);

}  // namespace shoestring::gemm_detail::cublaslt::cuda
