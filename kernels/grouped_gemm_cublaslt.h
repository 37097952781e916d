// The rows of grouped_gemm's and grouped_weight_gemm's tables that take all groups in one call of cuBLASLt, for
// grouped_gemm.cpp.
#pragma once

#include <string>

#include "kernels/grouped_gemm.h"

namespace shoestring::gemm_detail::cublaslt {

/// Runs products whose tensors lie on a CUDA device of sm_90, sm_100 or sm_110, where the library is 13.6.1 or newer
/// (refuses_library says which versions have which faults):
///   bf16 x bf16              any of the four orientations, results bf16 or f32
///   8-bit x 8-bit            both operands with the sum contiguous, one scale each
///   8-bit x 8-bit, sm_90     scales of 1x128 by 128x128; k grouped 128x1 by 128x1. As gemm_cublaslt.h has them
/// Pointers, strides and what is contiguous are multiples of 16 bytes; groups of 8-bit operands begin at multiples of
/// kGroupRows. The scratch, then on the device, has room for grouped_scratch_bytes and for a workspace.
std::string refuses_grouped(const GroupedGemmArgs& args);
std::string refuses_grouped(const GroupedWeightGemmArgs& args);
void run_grouped(const GroupedGemmArgs& args);
void run_grouped(const GroupedWeightGemmArgs& args);

/// Has the library make all that describes the product, as `run_grouped` does, and frees it. Needs the library and no
/// device. Throws Error(bug) with what the library says.
void try_descriptors(const GroupedGemmArgs& args);
void try_descriptors(const GroupedWeightGemmArgs& args);

}  // namespace shoestring::gemm_detail::cublaslt
