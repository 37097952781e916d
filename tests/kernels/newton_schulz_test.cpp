#include "kernels/newton_schulz.h"

#include <gtest/gtest.h>

#include <cmath>
#include <initializer_list>
#include <vector>

#include "kernels/base/check.h"
#include "kernels/base/workers.h"
#include "tests/support/compare.h"
#include "tests/support/fill.h"

namespace shoestring {
namespace {

using testing::cast;
using testing::normal;
using testing::same_bits;

Tensor orthogonalised(const Tensor& matrix, DType product, Stream& stream, int steps = 5) {
  const Shape& shape = matrix.shape();
  Arena scratch = Arena::growing({});
  Tensor update(matrix.dtype(), shape);
  newton_schulz(
      {.update = update, .matrix = matrix, .steps = steps, .product = product, .scratch = scratch, .stream = stream});
  EXPECT_EQ(scratch.used_bytes(), 0);
  return update;
}

// A matrix with given singular values: rotations of a diagonal, so that they are known exactly.
Tensor with_singular_values(const std::vector<double>& values, std::int64_t columns, std::uint64_t seed) {
  const auto rows = static_cast<std::int64_t>(values.size());
  Tensor m(DType::f64, {rows, columns});
  for (std::int64_t i = 0; i < rows; ++i) m.as<double>()[i * columns + i] = values[static_cast<std::size_t>(i)];
  const Tensor angles = testing::uniform(DType::f64, {4 * columns}, seed, 0, 6.28);
  for (std::int64_t turn = 0; turn < 4 * columns; ++turn) {
    const double c = std::cos(angles.as<double>()[turn]), s = std::sin(angles.as<double>()[turn]);
    const std::int64_t p = turn % columns, q = (turn * 7 + 1 + turn / columns) % columns;
    const std::int64_t a = turn % rows, b = (turn * 5 + 1 + turn / rows) % rows;
    for (std::int64_t i = 0; p != q && i < rows; ++i) {
      double& x = m.as<double>()[i * columns + p];
      double& y = m.as<double>()[i * columns + q];
      const double old = x;
      x = c * old - s * y;
      y = s * old + c * y;
    }
    for (std::int64_t j = 0; a != b && j < columns; ++j) {
      double& x = m.as<double>()[a * columns + j];
      double& y = m.as<double>()[b * columns + j];
      const double old = x;
      x = c * old - s * y;
      y = s * old + c * y;
    }
  }
  return m;
}

double iterate(double s, int steps) {
  for (int step = 0; step < steps; ++step) {
    s = kNewtonSchulzCoefficients[0] * s + kNewtonSchulzCoefficients[1] * std::pow(s, 3) +
        kNewtonSchulzCoefficients[2] * std::pow(s, 5);
  }
  return s;
}

double squares(const Tensor& t) {
  double sum = 0;
  for (std::int64_t i = 0; i < t.shape().elements(); ++i) sum += std::pow(testing::value_at(t, i), 2);
  return sum;
}

// <update, matrix> = sum of polynomial(s_i) s_i, and ||update||^2 = sum of polynomial(s_i)^2: the polynomial acted on
// the singular values and left the directions alone.
TEST(NewtonSchulz, ActsOnSingularValuesAlone) {
  Workers workers(2);
  Stream stream(workers);
  const std::vector<double> values = {5, 3, 2, 1.5, 1, 0.7, 0.4, 0.2, 0.1};
  double norm = 0;
  for (const double s : values) norm += s * s;
  norm = std::sqrt(norm);
  const Tensor wide = with_singular_values(values, 14, 3);
  Tensor tall(DType::f64, {14, 9});
  for (std::int64_t i = 0; i < 9 * 14; ++i) tall.as<double>()[i % 14 * 9 + i / 14] = wide.as<double>()[i];
  double expected_product = 0, expected_squares = 0;
  for (const double s : values) {
    const double after = iterate(s / (norm + 1e-7), 5);
    expected_product += after * s;
    expected_squares += after * after;
    EXPECT_TRUE(after > 0.65 && after < 1.21) << s;  // what Muon asks of five steps
  }
  for (const Tensor* matrix : std::initializer_list<const Tensor*>{&wide, &tall}) {
    const Tensor update = orthogonalised(*matrix, DType::f64, stream);
    double product = 0;
    for (std::int64_t i = 0; i < 126; ++i) product += update.as<double>()[i] * matrix->as<double>()[i];
    EXPECT_NEAR(product, expected_product, 1e-10);
    EXPECT_NEAR(squares(update), expected_squares, 1e-10);
    const Tensor fewer = orthogonalised(*matrix, DType::f64, stream, 4);
    EXPECT_GT(std::abs(squares(fewer) - expected_squares), 1e-3);  // a step less is seen
  }
}

// A step rounds X, A, B and the update (4 u, with coefficients up to 4.8 in front of A and B); near 1 the polynomial's
// slope is -0.72, so an error decays with 1 / (1 - 0.72): some 4 * 4.8 / 0.28 = 70 u for errors that all agree in sign,
// a few roots of that for those that do not. In bf16 the sums are f32, and half of these roundings disappear.
TEST(NewtonSchulz, LowPrecisionFollowsDouble) {
  Workers workers(2);
  Stream stream(workers);
  for (const Shape& shape : {Shape{24, 70}, Shape{70, 24}, Shape{33, 97}, Shape{1, 5}}) {
    const Tensor matrix = normal(DType::f32, shape, 5);
    const Tensor exact = orthogonalised(cast(matrix, DType::f64), DType::f64, stream);
    for (const DType product : {DType::f32, DType::bf16}) {
      const double bound = (product == DType::bf16 ? 10 : 40) * testing::unit_roundoff(product);
      const Tensor update = orthogonalised(matrix, product, stream);
      double error = 0;
      for (std::int64_t i = 0; i < shape.elements(); ++i) {
        error += std::pow(testing::value_at(update, i) - testing::value_at(exact, i), 2);
      }
      const double relative = std::sqrt(error / squares(exact));
      EXPECT_LT(relative, bound) << shape.to_string() << " " << name(product);
      const Tensor fewer = orthogonalised(matrix, product, stream, 2);
      double damage = 0;
      for (std::int64_t i = 0; i < shape.elements(); ++i) {
        damage += std::pow(testing::value_at(fewer, i) - testing::value_at(exact, i), 2);
      }
      EXPECT_GT(std::sqrt(damage / squares(exact)), bound);
    }
  }
}

// A tall matrix is iterated without being transposed, by products of its transpose: in the same order of sums.
TEST(NewtonSchulz, TransposedInPlaceAndByAnyNumberOfWorkers) {
  for (const DType product : {DType::f32, DType::bf16}) {
    const Tensor wide = normal(DType::f32, {70, 160}, 6);
    Tensor tall(DType::f32, {160, 70}), turned(DType::f32, {70, 160});
    testing::assign(tall, wide.view().transposed());
    Tensor first;
    for (const int count : {1, 2, 3}) {
      Workers workers(count);
      Stream stream(workers);
      Tensor update = orthogonalised(wide, product, stream);
      if (count == 1) first = testing::copy(update);
      EXPECT_TRUE(same_bits(update, first));
      testing::assign(turned, orthogonalised(tall, product, stream).view().transposed());
      EXPECT_TRUE(same_bits(turned, first));
      Tensor in_place = testing::copy(wide);
      Arena scratch = Arena::growing({});
      newton_schulz({.update = in_place,
                     .matrix = in_place,
                     .steps = 5,
                     .product = product,
                     .scratch = scratch,
                     .stream = stream});
      EXPECT_TRUE(same_bits(in_place, first));
    }
  }
}

TEST(NewtonSchulz, ZeroStaysZeroAndContractsHold) {
  Workers workers(1);
  Stream stream(workers);
  const Tensor zero(DType::f32, {4, 6});
  EXPECT_EQ(squares(orthogonalised(zero, DType::bf16, stream)), 0);
  Tensor update(DType::f32, {6, 4});
  Arena scratch(1 << 16, Device{});
  EXPECT_THROW(
      newton_schulz(
          {.update = update, .matrix = zero, .steps = 5, .product = DType::bf16, .scratch = scratch, .stream = stream}),
      Error);
}

}  // namespace
}  // namespace shoestring
