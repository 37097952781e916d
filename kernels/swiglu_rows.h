// What both CPU rows of SwiGLU need to know of their arguments. Included by them only.
#pragma once

#include <cstdint>

#include "kernels/base/tensor.h"

namespace shoestring::swiglu {

/// The scale of tile `tile` of row `row` (1x128).
inline float tile_scale(ConstTensorView scales, std::int64_t row, std::int64_t tile) {
  const std::int64_t at = row * scales.strides[0] + tile * scales.strides[1];
  return scales.dtype == DType::e8m0 ? static_cast<float>(scales.as<E8M0>()[at]) : scales.as<float>()[at];
}

/// Rows per piece of work: some tens of microseconds of it.
inline std::int64_t row_grain(std::int64_t f) { return 8192 / (f < 1 ? 1 : f) + 1; }

}  // namespace shoestring::swiglu
