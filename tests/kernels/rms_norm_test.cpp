#include "kernels/rms_norm.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/base/check.h"
#include "kernels/base/workers.h"
#include "tests/support/compare.h"
#include "tests/support/fill.h"
#include "tests/support/gradient.h"
#include "tests/support/recorded_bits.h"
#include "tests/support/row_coverage.h"

namespace shoestring {
namespace {

using testing::assign;
using testing::Bound;
using testing::cast;
using testing::Fenced;
using testing::hash_of;
using testing::heavy_tailed;
using testing::normal;
using testing::same_bits;
using testing::uniform;
using testing::within;

constexpr float kEps = 1e-5f;

DType statistic(DType act) { return act == DType::f64 ? DType::f64 : DType::f32; }
Shape rows_of(const Shape& shape) { return shape.rank() == 2 ? Shape{shape[0]} : Shape{shape[0], shape[1]}; }
Shape columns_of(const Shape& shape) { return {shape[shape.rank() - 1]}; }

// Inputs of one case, rounded to `act`, and the same numbers in double with double's results.
struct Case {
  Tensor x, residual, dy, gamma;
  Tensor x64, dy64, gamma64, y64, rstd64, dx64, dgamma64;

  Case(DType act, const Shape& shape, Stream& stream)
      : x(heavy_tailed(act, shape, 1)),
        residual(heavy_tailed(act, shape, 2)),
        dy(normal(act, shape, 3)),
        gamma(uniform(statistic(act), columns_of(shape), 4, 0.5, 1.5)),
        x64(cast(x, DType::f64)),
        dy64(cast(dy, DType::f64)),
        gamma64(cast(gamma, DType::f64)),
        y64(DType::f64, shape),
        rstd64(DType::f64, rows_of(shape)),
        dx64(DType::f64, shape),
        dgamma64(DType::f64, columns_of(shape)) {
    rms_norm_forward({.y = y64, .rstd = rstd64, .x = x64, .gamma = gamma64, .eps = kEps, .stream = stream});
    rms_norm_input_gradient({.dx = dx64, .dy = dy64, .x = x64, .gamma = gamma64, .rstd = rstd64, .stream = stream});
    rms_norm_weight_gradient({.dgamma = dgamma64, .dy = dy64, .x = x64, .rstd = rstd64, .stream = stream});
  }
};

// y = s * rstd * gamma: three roundings, the square root's and the division's, and half the relative error of the sum
// of squares, which has no cancellation.
Bound forward_bound(DType act, std::int64_t width) {
  Bound bound = testing::rounding_bound(act, DType::f32, 6);
  bound.relative += testing::sum_error(width, DType::f32) / 2;
  return bound;
}

// dx is a difference: its error is relative to the terms, not to itself. The saved rstd is a rounded float too.
Tensor input_gradient_magnitude(const Case& c, const Shape& shape) {
  Tensor magnitude(DType::f64, shape);
  const std::int64_t width = columns_of(shape)[0];
  const double* gamma = c.gamma64.as<double>();
  for (std::int64_t row = 0; row < shape.elements() / width; ++row) {
    const double r = c.rstd64.as<double>()[row];
    const double* x_row = c.x64.as<double>() + row * width;
    const double* dy_row = c.dy64.as<double>() + row * width;
    double mean = 0;
    for (std::int64_t j = 0; j < width; ++j) mean += std::abs(dy_row[j] * gamma[j] * x_row[j]);
    mean /= static_cast<double>(width);
    for (std::int64_t j = 0; j < width; ++j) {
      magnitude.as<double>()[row * width + j] =
          r * (std::abs(dy_row[j] * gamma[j]) + std::abs(x_row[j]) * r * r * mean);
    }
  }
  return magnitude;
}

Bound input_gradient_bound(DType act, std::int64_t width) {
  Bound bound = testing::rounding_bound(act, DType::f32, 0);
  bound.absolute = 10 * testing::unit_roundoff(DType::f32) + 2 * testing::sum_error(width, DType::f32);
  return bound;
}

const std::vector<Shape> kShapes = {{1, 1},   {1, 31},    {3, 32},    {2, 33},    {5, 63},
                                    {4, 64},  {3, 65},    {130, 48},  {129, 127}, {257, 128},
                                    {7, 513}, {2, 3, 64}, {9, 4, 33}, {3, 7168},  {66, 2, 128}};

TEST(RmsNorm, EveryVariantAgreesWithDouble) {
  Workers workers(2);
  Stream stream(workers);
  for (const DType act : {DType::f32, DType::bf16}) {
    for (const Shape& shape : kShapes) {
      const Case c(act, shape, stream);
      const std::int64_t width = columns_of(shape)[0];
      const Tensor magnitude = input_gradient_magnitude(c, shape);
      for (const auto& variant : rms_norm_forward_variants()) {
        SCOPED_TRACE(fmt::format("{} {} {}", variant.name, name(act), shape.to_string()));
        Fenced y(act, shape, 5), rstd(DType::f32, rows_of(shape));
        const RmsNormArgs args{.y = y, .rstd = rstd, .x = c.x, .gamma = c.gamma, .eps = kEps, .stream = stream};
        if (!testing::runs(variant, args)) continue;
        variant.run(args);
        EXPECT_TRUE(within(y, c.y64, forward_bound(act, width)));
        EXPECT_TRUE(within(rstd, c.rstd64, forward_bound(DType::f32, width)));
        EXPECT_TRUE(y.intact() && rstd.intact());
      }
      const Tensor rstd = cast(c.rstd64, DType::f32);
      for (const auto& variant : rms_norm_input_gradient_variants()) {
        SCOPED_TRACE(fmt::format("{} {} {}", variant.name, name(act), shape.to_string()));
        Fenced dx(act, shape, 3);
        const RmsNormInputGradientArgs args{
            .dx = dx, .dy = c.dy, .x = c.x, .gamma = c.gamma, .rstd = rstd, .stream = stream};
        if (!testing::runs(variant, args)) continue;
        variant.run(args);
        Bound bound = input_gradient_bound(act, width);
        bound.allow_zeros = width == 1;  // one column: the gradient is all cancellation
        EXPECT_TRUE(within(dx, c.dx64, bound, magnitude));
        EXPECT_TRUE(dx.intact());
      }
    }
  }
}

TEST(RmsNorm, WeightGradientAccumulates) {
  Workers workers(2);
  Stream stream(workers);
  for (const DType act : {DType::f32, DType::bf16}) {
    for (const Shape& shape : kShapes) {
      const Case c(act, shape, stream);
      const Tensor rstd = cast(c.rstd64, DType::f32);
      const Tensor before = normal(DType::f32, columns_of(shape), 9);
      const std::int64_t rows = rows_of(shape).elements();
      Tensor expected = cast(before, DType::f64), magnitude(DType::f64, columns_of(shape));
      for (std::int64_t j = 0; j < expected.shape()[0]; ++j) {
        expected.as<double>()[j] += c.dgamma64.as<double>()[j];
        double terms = std::abs(static_cast<double>(before.as<float>()[j]));
        for (std::int64_t row = 0; row < rows; ++row) {
          const std::int64_t i = row * expected.shape()[0] + j;
          terms += std::abs(c.dy64.as<double>()[i] * c.x64.as<double>()[i] * c.rstd64.as<double>()[row]);
        }
        magnitude.as<double>()[j] = terms;
      }
      for (const auto& variant : rms_norm_weight_gradient_variants()) {
        SCOPED_TRACE(fmt::format("{} {} {}", variant.name, name(act), shape.to_string()));
        Fenced dgamma(DType::f32, columns_of(shape));
        assign(dgamma, before);
        const RmsNormWeightGradientArgs args{.dgamma = dgamma, .dy = c.dy, .x = c.x, .rstd = rstd, .stream = stream};
        if (!testing::runs(variant, args)) continue;
        variant.run(args);
        const Bound bound{.relative = testing::unit_roundoff(DType::f32),
                          .absolute = testing::sum_error(rows + 4, DType::f32)};
        EXPECT_TRUE(within(dgamma, expected, bound, magnitude));
        EXPECT_TRUE(dgamma.intact());
      }
    }
  }
}

TEST(RmsNorm, ResidualIsAddedFirstAndTheRoundedSumNormalised) {
  Workers workers(1);
  Stream stream(workers);
  const Shape shape{5, 100};
  for (const DType act : {DType::f32, DType::bf16, DType::f64}) {
    const Case c(act, shape, stream);
    Tensor total(act, shape), expected(act, shape);
    for (std::int64_t i = 0; i < shape.elements(); ++i) {
      testing::set_value(total, i, testing::value_at(c.x, i) + testing::value_at(c.residual, i));
    }
    for (const auto& variant : rms_norm_forward_variants()) {
      SCOPED_TRACE(fmt::format("{} {}", variant.name, name(act)));
      const RmsNormArgs plain{.y = expected, .x = total, .gamma = c.gamma, .eps = kEps, .stream = stream};
      if (!testing::runs(variant, plain)) continue;
      variant.run(plain);
      Fenced y(act, shape), sum(act, shape);
      variant.run(
          {.y = y, .x = c.x, .gamma = c.gamma, .residual = c.residual, .sum = sum, .eps = kEps, .stream = stream});
      EXPECT_TRUE(same_bits(sum, total));
      // The vector row adds its squares in another order than without a residual: not the same bits of y.
      EXPECT_TRUE(within(y, cast(expected, DType::f64), forward_bound(act == DType::f64 ? DType::f32 : act, 100)));
      Tensor in_place = cast(c.x, act);
      variant.run({.y = y,
                   .x = in_place,
                   .gamma = c.gamma,
                   .residual = c.residual,
                   .sum = in_place,
                   .eps = kEps,
                   .stream = stream});
      EXPECT_TRUE(same_bits(in_place, total));
    }
  }
}

TEST(RmsNorm, InputGradientAddsToTheResidualStream) {
  Workers workers(1);
  Stream stream(workers);
  const Shape shape{6, 80};
  const Case c(DType::bf16, shape, stream);
  const Tensor rstd = cast(c.rstd64, DType::f32);
  const Tensor before = normal(DType::bf16, shape, 12);
  Tensor expected(DType::f64, shape), magnitude = input_gradient_magnitude(c, shape);
  for (std::int64_t i = 0; i < shape.elements(); ++i) {
    expected.as<double>()[i] = c.dx64.as<double>()[i] + testing::value_at(before, i);
    magnitude.as<double>()[i] += std::abs(testing::value_at(before, i));
  }
  for (const auto& variant : rms_norm_input_gradient_variants()) {
    Tensor dx = cast(before, DType::bf16);
    const RmsNormInputGradientArgs args{
        .dx = dx, .dy = c.dy, .x = c.x, .gamma = c.gamma, .rstd = rstd, .accumulate = true, .stream = stream};
    if (!testing::runs(variant, args)) continue;
    variant.run(args);
    EXPECT_TRUE(within(dx, expected, input_gradient_bound(DType::bf16, 80), magnitude)) << variant.name;
  }
}

TEST(RmsNorm, TakesHeadsOfAFusedProjectionInPlace) {
  Workers workers(2);
  Stream stream(workers);
  // [tokens, 3 * 4 * 32]: the second third, as 4 heads of 32.
  const Tensor fused = normal(DType::bf16, {7, 384}, 5);
  ConstTensorView heads = fused.view().slice(1, 128, 128);
  heads.shape = {7, 4, 32};
  heads.strides = {384, 32, 1};
  const Tensor dense = testing::copy(heads);
  const Tensor gamma = uniform(DType::f32, {32}, 6, 0.5, 1.5);
  for (const auto& variant : rms_norm_forward_variants()) {
    Tensor y(DType::bf16, {7, 4, 32}), rstd(DType::f32, {7, 4});
    const RmsNormArgs args{.y = y, .rstd = rstd, .x = dense, .gamma = gamma, .eps = kEps, .stream = stream};
    if (!testing::runs(variant, args)) continue;
    variant.run(args);
    Tensor inside = cast(fused, DType::bf16);
    TensorView view = inside.view().slice(1, 128, 128);
    view.shape = heads.shape;
    view.strides = heads.strides;
    Tensor rstd_inside(DType::f32, {7, 4});
    variant.run({.y = view, .rstd = rstd_inside, .x = view, .gamma = gamma, .eps = kEps, .stream = stream});
    EXPECT_TRUE(same_bits(view, y)) << variant.name;
    EXPECT_TRUE(same_bits(rstd_inside, rstd)) << variant.name;
    EXPECT_TRUE(same_bits(inside.view().slice(1, 0, 128), fused.view().slice(1, 0, 128)));
    EXPECT_TRUE(same_bits(inside.view().slice(1, 256, 128), fused.view().slice(1, 256, 128)));
  }
}

TEST(RmsNorm, GradientsMatchCentralDifferences) {
  Workers workers(1);
  Stream stream(workers);
  const Shape shape{3, 2, 5};
  Tensor x = normal(DType::f64, shape, 1), gamma = uniform(DType::f64, {5}, 2, 0.5, 1.5);
  const Tensor dy = normal(DType::f64, shape, 3);
  Tensor y(DType::f64, shape), rstd(DType::f64, {3, 2}), dx(DType::f64, shape), dgamma(DType::f64, {5});
  const auto loss = [&] {
    rms_norm_forward({.y = y, .rstd = rstd, .x = x, .gamma = gamma, .eps = kEps, .stream = stream});
    return testing::projection(y, dy);
  };
  loss();
  rms_norm_input_gradient({.dx = dx, .dy = dy, .x = x, .gamma = gamma, .rstd = rstd, .stream = stream});
  rms_norm_weight_gradient({.dgamma = dgamma, .dy = dy, .x = x, .rstd = rstd, .stream = stream});
  EXPECT_TRUE(testing::gradient_matches(loss, x, dx));
  EXPECT_TRUE(testing::gradient_matches(loss, gamma, dgamma));
  dx.as<double>()[7] *= 1.0001;
  dgamma.as<double>()[2] += 1e-5;
  EXPECT_FALSE(testing::gradient_matches(loss, x, dx));
  EXPECT_FALSE(testing::gradient_matches(loss, gamma, dgamma));
}

TEST(RmsNorm, SameBitsForAnyNumberOfWorkersAndRows) {
  const Shape shape{300, 160};
  Workers one(1);
  Stream alone(one);
  const Case c(DType::bf16, shape, alone);
  const Tensor rstd = cast(c.rstd64, DType::f32);
  Tensor y(DType::bf16, shape), dx(DType::bf16, shape), dgamma(DType::f32, {160});
  const auto run = [&](Stream& stream) {
    dgamma = Tensor(DType::f32, {160});
    rms_norm_forward({.y = y, .x = c.x, .gamma = c.gamma, .eps = kEps, .stream = stream});
    rms_norm_input_gradient({.dx = dx, .dy = c.dy, .x = c.x, .gamma = c.gamma, .rstd = rstd, .stream = stream});
    rms_norm_weight_gradient({.dgamma = dgamma, .dy = c.dy, .x = c.x, .rstd = rstd, .stream = stream});
  };
  run(alone);
  const Tensor y1 = testing::copy(y), dx1 = testing::copy(dx), dgamma1 = testing::copy(dgamma);
  for (const int count : {2, 3}) {
    Workers workers(count);
    Stream stream(workers);
    run(stream);
    EXPECT_TRUE(same_bits(y, y1));
    EXPECT_TRUE(same_bits(dx, dx1));
    EXPECT_TRUE(same_bits(dgamma, dgamma1));
  }
  Tensor last(DType::bf16, {1, 160});
  rms_norm_forward({.y = last, .x = c.x.view().slice(0, 299, 1), .gamma = c.gamma, .eps = kEps, .stream = alone});
  EXPECT_TRUE(same_bits(last, y1.view().slice(0, 299, 1)));
}

// Written down on AVX2: the vector row's sums run in one order on every instruction set.
TEST(RmsNorm, TheVectorRowGivesTheSameBitsOnEveryProcessor) {
  const auto simd = [](const auto& variants) {
    return *std::find_if(variants.begin(), variants.end(), [](const auto& row) { return row.name == "simd"; });
  };
  Workers workers(2);
  Stream stream(workers);
  const Shape shape = {37, 213};
  const Tensor x = uniform(DType::bf16, shape, 1, -3, 3), residual = uniform(DType::bf16, shape, 2, -1, 1);
  const Tensor dy = uniform(DType::bf16, shape, 3, -2, 2), gamma = uniform(DType::f32, {213}, 4, 0.5, 1.5);
  Tensor y(DType::bf16, shape), total(DType::bf16, shape), dx(DType::bf16, shape);
  Tensor rstd(DType::f32, {37}), dgamma(DType::f32, {213});
  const RmsNormArgs args{
      .y = y, .rstd = rstd, .x = x, .gamma = gamma, .residual = residual, .sum = total, .eps = kEps, .stream = stream};
  const auto forward = simd(rms_norm_forward_variants());
  if (!forward.refuses(args).empty()) GTEST_SKIP() << forward.refuses(args);
  forward.run(args);
  simd(rms_norm_input_gradient_variants())
      .run({.dx = dx, .dy = dy, .x = total, .gamma = gamma, .rstd = rstd, .stream = stream});
  simd(rms_norm_weight_gradient_variants())
      .run({.dgamma = dgamma, .dy = dy, .x = total, .rstd = rstd, .stream = stream});
  EXPECT_EQ(hash_of({y}), 0x33772A86DAFD1E82u);
  EXPECT_EQ(hash_of({rstd}), 0x19D0965F6A9F04DCu);
  EXPECT_EQ(hash_of({dx}), 0xADFCD5B6CDF8BF26u);
  EXPECT_EQ(hash_of({dgamma}), 0x42AC24D0BB7AE123u);
}

TEST(RmsNorm, DamagedResultsLeaveTheBounds) {
  Workers workers(1);
  Stream stream(workers);
  const Shape shape{4, 256};
  for (const DType act : {DType::f32, DType::bf16}) {
    const Case c(act, shape, stream);
    Tensor y(act, shape);
    const RmsNormArgs args{.y = y, .x = c.x, .gamma = c.gamma, .eps = kEps, .stream = stream};
    const Bound bound = forward_bound(act, 256);
    rms_norm_forward(args);
    EXPECT_TRUE(within(y, c.y64, bound));
    testing::set_value(y, 1000, testing::value_at(y, 1000) * (act == DType::bf16 ? 1.02 : 1.0001));
    EXPECT_FALSE(within(y, c.y64, bound));  // one element
    Tensor tail = cast(c.x, act);
    testing::fill_constant(tail.view().slice(1, 250, 6), 0);
    RmsNormArgs dropped = args;
    dropped.x = tail;
    rms_norm_forward(dropped);
    EXPECT_FALSE(within(y, c.y64, bound));  // a dropped tail
    Tensor weak = cast(c.gamma, DType::f32);
    for (int j = 0; j < 256; ++j) weak.as<float>()[j] *= 1.02f;
    RmsNormArgs scaled = args;
    scaled.gamma = weak;
    rms_norm_forward(scaled);
    EXPECT_FALSE(within(y, c.y64, bound));  // a scale error of 2%
  }
}

TEST(RmsNorm, EmptyInputsAndBrokenContracts) {
  Workers workers(1);
  Stream stream(workers);
  Tensor none(DType::f32, {0, 8}), gamma(DType::f32, {8}), dgamma(DType::f32, {8}), x(DType::f32, {2, 8});
  rms_norm_forward({.y = none, .x = none, .gamma = gamma, .eps = kEps, .stream = stream});
  rms_norm_weight_gradient({.dgamma = dgamma, .dy = none, .x = none, .rstd = {}, .stream = stream});
  EXPECT_EQ(dgamma.as<float>()[0], 0.0f);
  Tensor narrow(DType::f32, {7}), wrong(DType::bf16, {2, 8});
  EXPECT_THROW(rms_norm_forward({.y = x, .x = x, .gamma = narrow, .eps = kEps, .stream = stream}), Error);
  EXPECT_THROW(rms_norm_forward({.y = wrong, .x = x, .gamma = gamma, .eps = kEps, .stream = stream}), Error);
}

}  // namespace
}  // namespace shoestring
