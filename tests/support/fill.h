// Filling test tensors: reproducible numbers from Philox, and outputs fenced by NaN.
//
// Every filler is a function of (seed, logical index), so a strided and a contiguous tensor of one shape get the same
// values, and a test that fails fails again. Values are drawn in double and rounded once to the tensor's format.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>

#include "kernels/base/tensor.h"

namespace shoestring::testing {

/// Element `index` of a view in row-major logical order, whatever its strides and format.
double value_at(ConstTensorView view, std::int64_t index);
/// Rounds `value` once to the view's format (through float for formats narrower than double).
void set_value(TensorView view, std::int64_t index, double value);

/// scale * N(0, 1).
void fill_normal(TensorView view, std::uint64_t seed, double scale = 1.0);
/// Uniform in [low, high).
void fill_uniform(TensorView view, std::uint64_t seed, double low, double high);
/// N(0, 1) * exp(1.5 * N(0, 1)), and one in 64 columns 30 times larger: tails and outlier channels as real activations
/// have them. Clipped to +-20000, which every format but e4m3 holds.
void fill_heavy_tailed(TensorView view, std::uint64_t seed);
void fill_constant(TensorView view, double value);
/// Integers uniform in [low, high).
void fill_integers(TensorView view, std::uint64_t seed, std::int64_t low, std::int64_t high);

Tensor normal(DType dtype, const Shape& shape, std::uint64_t seed, double scale = 1.0);
Tensor uniform(DType dtype, const Shape& shape, std::uint64_t seed, double low, double high);
Tensor heavy_tailed(DType dtype, const Shape& shape, std::uint64_t seed);
/// A contiguous copy, rounded to `dtype`.
Tensor cast(ConstTensorView view, DType dtype);
/// A contiguous copy in the same format, bit for bit.
Tensor copy(ConstTensorView view);
/// Writes `from` (any format, same shape) into `to`.
void assign(TensorView to, ConstTensorView from);

/// A tensor with guard elements before, after and, with `row_padding`, between its rows (the last dim's). Everything,
/// the tensor itself included, starts as 0xFF bytes: NaN in every floating-point format, -1 in the signed ones. So an
/// element that an op forgot is NaN, and a write outside is seen by `intact`.
class Fenced {
 public:
  Fenced(DType dtype, const Shape& shape, std::int64_t row_padding = 0);

  TensorView view() const { return view_; }
  operator TensorView() const { return view_; }
  operator ConstTensorView() const { return view_; }
  /// Whether every guard element still holds its 0xFF bytes.
  ::testing::AssertionResult intact() const;

 private:
  Storage storage_;
  TensorView view_;
};

}  // namespace shoestring::testing
