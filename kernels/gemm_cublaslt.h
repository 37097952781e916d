// The cuBLASLt row of gemm's table, for gemm.cpp.
#pragma once

#include <string>

#include "kernels/gemm.h"

namespace shoestring::gemm_detail::cublaslt {

/// Runs dense products whose tensors lie on a CUDA device:
///   f32 x f32, bf16 x bf16   any of the four orientations
///   8-bit x 8-bit, sm_90     both operands with k contiguous; scales f32: per tensor both, or 1x128 by 1x128, 1x128 by
///                            128x128, 128x128 by 1x128. 1x128 scales lie with rows contiguous (strides {1, rows}),
///                            128x128 scales with k contiguous in lines padded to a multiple of 4. k and strides are
///                            multiples of 16, m and n of 8; pointers (but of a single scale) and rows of c lie on
///                            multiples of 16 bytes; a bias only with a bf16 result.
/// A bias has c's format. k = 0 needs no library; a bias is then not added to a c that accumulates.
/// Its workspace is what `scratch`, then on the device, has left behind the next 256 bytes, up to 32 MiB; none is
/// needed.
std::string refuses(const GemmArgs& args);
void run(const GemmArgs& args);

}  // namespace shoestring::gemm_detail::cublaslt
