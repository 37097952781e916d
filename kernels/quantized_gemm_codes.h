// Where quantized_gemm leaves the row codes of x for the product that reads them. Not for its callers.
#pragma once

#include "kernels/quantize.h"

namespace shoestring::gemm_detail {

/// Uninitialised room in `scratch` for the codes of a matrix of `shape` and for their scales, which lie as the product
/// on `reader` wants them: row by row on a CPU; 1x128 scales for a CUDA device with rows contiguous (gemm_cublaslt.h).
/// Takes the same number of bytes for either.
ScaledView take_row_codes(Arena& scratch, const Shape& shape, DType values, Granularity row_tile, ScaleKind kind,
                          DeviceKind reader);

}  // namespace shoestring::gemm_detail
