// Where the codes of a product's left operand stand, for the product that reads them: of quantized_gemm, and of who
// makes that operand and writes nothing but its codes.
#pragma once

#include "kernels/quantize.h"

namespace shoestring::gemm_detail {

/// Uninitialised room in `scratch` for the codes of a matrix of `shape` and for their scales, which lie as the product
/// on `reader` wants them: row by row on a CPU; 1x128 scales for a CUDA device with rows contiguous (gemm_cublaslt.h).
/// Takes the same number of bytes for either.
ScaledView take_row_codes(Arena& scratch, const Shape& shape, DType values, Granularity row_tile, ScaleKind kind,
                          DeviceKind reader);

}  // namespace shoestring::gemm_detail
