#include "tests/support/compare.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "tests/support/fill.h"

namespace shoestring::testing {
namespace {

std::string position(const Shape& shape, std::int64_t index) {
  Shape at = shape;
  for (int dim = shape.rank() - 1; dim >= 0; --dim) {
    at[dim] = index % shape[dim];
    index /= shape[dim];
  }
  return at.to_string();
}

::testing::AssertionResult different_shapes(ConstTensorView actual, ConstTensorView expected) {
  return ::testing::AssertionFailure() << "actual is " << actual.to_string() << ", expected " << expected.to_string();
}

}  // namespace

double unit_roundoff(DType dtype) {
  switch (dtype) {
    case DType::f64: return 0x1p-53;
    case DType::f32: return 0x1p-24;
    case DType::bf16: return 0x1p-8;
    case DType::e4m3: return 0x1p-4;
    case DType::e5m2: return 0x1p-3;
    default: return 0;
  }
}

double sum_error(std::int64_t length, DType accumulator) {
  const auto terms = static_cast<double>(length);
  return std::min(terms, 6 * std::sqrt(terms)) * unit_roundoff(accumulator);
}

Bound rounding_bound(DType output, DType accumulator, int operations, std::int64_t length) {
  Bound bound;
  bound.relative = 1.01 * unit_roundoff(output) + operations * unit_roundoff(accumulator);
  bound.absolute = length > 1 ? sum_error(length, accumulator) : 0;
  return bound;
}

::testing::AssertionResult same_bits(ConstTensorView actual, ConstTensorView expected) {
  if (actual.shape != expected.shape || actual.dtype != expected.dtype) return different_shapes(actual, expected);
  const auto bytes = static_cast<std::size_t>(actual.bytes());
  if (actual.contiguous() && expected.contiguous() &&
      (bytes == 0 || std::memcmp(actual.data, expected.data, bytes) == 0)) {
    return ::testing::AssertionSuccess();
  }
  const Tensor a = copy(actual);
  const Tensor b = copy(expected);
  const std::int64_t size = size_bytes(actual.dtype);
  std::int64_t wrong = 0;
  std::int64_t first = 0;
  for (std::int64_t i = 0; i < actual.elements(); ++i) {
    if (std::memcmp(a.as<char>() + i * size, b.as<char>() + i * size, static_cast<std::size_t>(size)) == 0) continue;
    if (wrong++ == 0) first = i;
  }
  if (wrong == 0) return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure() << fmt::format(
             "{} of {} elements of {} differ in bits, first at {}: {} instead of {}", wrong, actual.elements(),
             actual.to_string(), position(actual.shape, first), value_at(a, first), value_at(b, first));
}

::testing::AssertionResult within(ConstTensorView actual, ConstTensorView expected, const Bound& bound,
                                  ConstTensorView magnitude) {
  if (actual.shape != expected.shape) return different_shapes(actual, expected);
  if (!magnitude.empty() && magnitude.shape != expected.shape) return different_shapes(magnitude, expected);
  const std::int64_t count = expected.elements();
  std::int64_t zeros = 0;
  std::int64_t blind = 0;  // elements for which 0 would pass too
  std::int64_t wrong = 0;
  std::int64_t worst = 0;
  double worst_ratio = -1;
  for (std::int64_t i = 0; i < count; ++i) {
    const double want = value_at(expected, i);
    const double got = value_at(actual, i);
    const double scale = magnitude.empty() ? 1.0 : value_at(magnitude, i);
    const double allowed = bound.relative * std::abs(want) + bound.absolute * scale + bound.floor;
    zeros += want == 0;
    blind += std::abs(want) <= allowed;
    if (got == want) continue;
    const double error = std::abs(got - want);
    if (error <= allowed && std::isfinite(want)) continue;
    ++wrong;
    const double ratio = std::isfinite(error) && allowed > 0 ? error / allowed : INFINITY;
    if (ratio > worst_ratio) {
      worst_ratio = ratio;
      worst = i;
    }
  }
  if (wrong > 0) {
    return ::testing::AssertionFailure() << fmt::format(
               "{} of {} elements of {} leave the bound, worst at {}: {} instead of {}, {:.3g} times what is allowed",
               wrong, count, actual.to_string(), position(expected.shape, worst), value_at(actual, worst),
               value_at(expected, worst), worst_ratio);
  }
  if (!bound.allow_zeros && 2 * std::max(zeros, blind) > count) {
    return ::testing::AssertionFailure() << fmt::format(
               "nothing was shown: {} of {} expected values are zero, for {} the bound lets a zero pass", zeros, count,
               blind);
  }
  return ::testing::AssertionSuccess();
}

}  // namespace shoestring::testing
