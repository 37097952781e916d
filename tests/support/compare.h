// Comparing tensors: bit for bit, or within a bound that is derived from the number format.
//
// An error bound belongs to (format, length of the sum) and is written as
//     |actual - expected| <= relative * |expected| + absolute * magnitude + floor
// `expected` comes from a reference in double over the same rounded inputs. `magnitude` is the sum of the absolute
// values of the terms behind each element (a long sum may cancel; its error does not), or 1 where none is given.
// `floor` is for values that underflow.
//
// Easy passes are distrusted: a comparison fails when more than half of the expected values are zero, unless the test
// says that zeros are what it wants, and when the bound would also let a zeroed output pass for half of the elements.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>

#include "kernels/base/tensor.h"

namespace shoestring::testing {

struct Bound {
  double relative = 0;
  double absolute = 0;
  double floor = 0;
  bool allow_zeros = false;  ///< the expected values are mostly zero, or below the bound, on purpose
};

/// Half a unit in the last place, relative: 2^-53, 2^-24, 2^-8 (bf16), 2^-4 (e4m3), 2^-3 (e5m2).
double unit_roundoff(DType dtype);

/// The relative error of a sum of `length` rounded terms in `accumulator`, per unit of magnitude. Worst case is
/// length * u; rounding errors behave as independent, so 6 * sqrt(length) * u holds except with probability 1e-8 per
/// element (Higham, Mary: "A new approach to probabilistic rounding error analysis", 2019, theorem 2.4), and never
/// above the worst case. Lengths below 36 use the worst case.
double sum_error(std::int64_t length, DType accumulator);

/// The bound of an output rounded once to `output`, computed from exact inputs in `accumulator` with `operations`
/// roundings per element and sums over `length` terms: relative = u(output) (1.01 for second-order terms)
/// + operations * u(accumulator); absolute = sum_error(length, accumulator).
Bound rounding_bound(DType output, DType accumulator, int operations, std::int64_t length = 1);

/// Same shape, format and bits; strides may differ.
::testing::AssertionResult same_bits(ConstTensorView actual, ConstTensorView expected);

/// Every element of `actual` within `bound` of `expected` (any formats, same shape). NaN passes nothing; infinities
/// must agree. `magnitude` is empty or has the same shape. The message names the worst element.
::testing::AssertionResult within(ConstTensorView actual, ConstTensorView expected, const Bound& bound,
                                  ConstTensorView magnitude = {});

}  // namespace shoestring::testing
