// Gradients against central differences in double.
//
// The difference is the five-point one, (8 (f(+h) - f(-h)) - (f(+2h) - f(-2h))) / 12h, with error h^4 f^(5) / 30 plus
// 1.5 * 2^-53 |f| / h. With h = 1e-3 on values of order one both are near 1e-13 |f|, so 1e-7 of the gradient's own
// scale is a wide margin for a right formula, and far below what a wrong one shows.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <functional>

#include "kernels/base/tensor.h"

namespace shoestring::testing {

struct GradientCheck {
  double step = 1e-3;
  double tolerance = 1e-7;    ///< of max(|difference|, rms of the analytic gradient)
  std::int64_t samples = 64;  ///< elements tried; all when the tensor has no more
  std::uint64_t seed = 1;     ///< which elements
};

/// Whether `gradient` [as variable] is d loss / d variable. `loss` reads `variable` (f64, any strides), which is moved
/// and put back. Fails when the analytic gradient is all zero.
::testing::AssertionResult gradient_matches(const std::function<double()>& loss, TensorView variable,
                                            ConstTensorView gradient, const GradientCheck& options = {});

/// sum_i output_i * weights_i in double: turns an output into a loss whose gradient is `weights`.
double projection(ConstTensorView output, ConstTensorView weights);

}  // namespace shoestring::testing
