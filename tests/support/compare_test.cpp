// The comparisons are the ground the other tests stand on: what they must refuse.
#include "tests/support/compare.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/support/fill.h"
#include "tests/support/gradient.h"

namespace shoestring::testing {
namespace {

TEST(Compare, BoundsAreSharp) {
  const Tensor expected = normal(DType::f64, {100}, 1);
  const double u = unit_roundoff(DType::bf16);
  const Bound bound = rounding_bound(DType::bf16, DType::f32, 0);
  EXPECT_TRUE(within(cast(expected, DType::bf16), expected, bound));
  Tensor shifted = copy(expected);
  shifted.as<double>()[50] *= 1 + 1.1 * u;
  EXPECT_FALSE(within(shifted, expected, bound));
}

TEST(Compare, RefusesWhatShowsNothing) {
  const Tensor zeros(DType::f32, {10}), tiny = normal(DType::f32, {10}, 1, 1e-6);
  EXPECT_FALSE(within(zeros, zeros, {.relative = 0.1}));
  EXPECT_TRUE(within(zeros, zeros, {.relative = 0.1, .allow_zeros = true}));
  EXPECT_FALSE(within(tiny, tiny, {.absolute = 1e-3}));  // a zero would pass as well
  const Tensor other(DType::f32, {11});
  EXPECT_FALSE(within(zeros, other, {.allow_zeros = true}));
}

TEST(Compare, NanAndInfinity) {
  Tensor expected = normal(DType::f32, {10}, 1);
  Tensor actual = copy(expected);
  actual.as<float>()[3] = std::nanf("");
  EXPECT_FALSE(within(actual, expected, {.relative = 1e30}));
  actual.as<float>()[3] = INFINITY;
  EXPECT_FALSE(within(actual, expected, {.relative = 1e-3}));
  expected.as<float>()[3] = INFINITY;
  EXPECT_TRUE(within(actual, expected, {.relative = 1e-3}));
  actual.as<float>()[3] = 1e30f;
  EXPECT_FALSE(within(actual, expected, {.relative = 1e-3}));
}

TEST(Compare, BitsSeeSignedZeroAndStrides) {
  Tensor a(DType::f32, {4}), b(DType::f32, {4});
  EXPECT_TRUE(same_bits(a, b));
  b.as<float>()[2] = -0.0f;
  EXPECT_FALSE(same_bits(a, b));
  EXPECT_FALSE(same_bits(a, Tensor(DType::i32, {4})));
  const Tensor m = normal(DType::bf16, {3, 5}, 2);
  EXPECT_TRUE(same_bits(m.view().transposed().transposed(), m));
  EXPECT_TRUE(same_bits(copy(m.view().transposed()), m.view().transposed()));
}

TEST(Fill, IsReproducibleAndIgnoresStrides) {
  Fenced padded(DType::f32, {4, 6}, 3);
  fill_heavy_tailed(padded, 5);
  EXPECT_TRUE(same_bits(padded, heavy_tailed(DType::f32, {4, 6}, 5)));
  EXPECT_FALSE(same_bits(padded, heavy_tailed(DType::f32, {4, 6}, 6)));
  EXPECT_TRUE(padded.intact());
}

TEST(Fill, FencesSeeEveryStrayWrite) {
  for (const DType dtype : {DType::f64, DType::f32, DType::bf16, DType::e4m3, DType::i32}) {
    Fenced t(dtype, {3, 4}, 2);
    EXPECT_TRUE(std::isnan(value_at(t, 0)) || value_at(t, 0) == -1);
    for (std::int64_t i = 0; i < 12; ++i) set_value(t, i, 1);
    EXPECT_TRUE(t.intact());
    for (const std::int64_t stray : {-1, 4, 11, 16}) {  // before, in the padding of a row, of the last row, after
      Fenced hit(dtype, {3, 4}, 2);
      TensorView one = hit.view();
      one.data = static_cast<char*>(one.data) + stray * size_bytes(dtype);
      one.shape = {1};
      one.strides = {1};
      set_value(one, 0, 0);
      EXPECT_FALSE(hit.intact()) << name(dtype) << " " << stray;
    }
  }
}

TEST(Gradient, AcceptsTheRightAndRefusesTheWrong) {
  Tensor x = uniform(DType::f64, {6}, 3, 0.5, 2.0), gradient(DType::f64, {6});
  const auto loss = [&] {
    double sum = 0;
    for (int i = 0; i < 6; ++i) sum += std::log(x.as<double>()[i]) * std::sin(x.as<double>()[i]);
    return sum;
  };
  const Tensor before = copy(x);
  for (int i = 0; i < 6; ++i) {
    const double v = x.as<double>()[i];
    gradient.as<double>()[i] = std::sin(v) / v + std::log(v) * std::cos(v);
  }
  EXPECT_TRUE(gradient_matches(loss, x, gradient));
  EXPECT_TRUE(same_bits(x, before));
  gradient.as<double>()[4] *= 1 + 1e-5;
  EXPECT_FALSE(gradient_matches(loss, x, gradient));
  const Tensor zero(DType::f64, {6});
  EXPECT_FALSE(gradient_matches(loss, x, zero));
}

}  // namespace
}  // namespace shoestring::testing
