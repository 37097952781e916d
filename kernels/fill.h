// One value everywhere: gradients back to zero, sums that begin.
#pragma once

#include "kernels/base/device.h"
#include "kernels/base/tensor.h"

namespace shoestring {

/// x_i = value, rounded to x's format: f64, f32, bf16, i64 or i32. Dense, of any shape. Host memory.
void fill(TensorView x, double value, Stream& stream);

}  // namespace shoestring
