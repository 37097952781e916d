#include "kernels/base/dtype.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

namespace shoestring {
namespace {

// The finite values of an 8-bit format by their definition, in code order, to round against by search.
template <class T>
std::vector<double> positive_values(int mantissa, int bias, int codes) {
  std::vector<double> values;
  for (int code = 0; code < codes; ++code) {
    const int exponent = code >> mantissa;
    const double fraction = (code & ((1 << mantissa) - 1)) / static_cast<double>(1 << mantissa);
    values.push_back(exponent == 0 ? std::ldexp(fraction, 1 - bias) : std::ldexp(1 + fraction, exponent - bias));
  }
  return values;
}

// Nearest value, ties to the even code, saturating.
int nearest(const std::vector<double>& values, double magnitude) {
  int best = 0;
  for (int code = 1; code < static_cast<int>(values.size()); ++code) {
    const double gap = std::abs(values[static_cast<std::size_t>(code)] - magnitude);
    const double least = std::abs(values[static_cast<std::size_t>(best)] - magnitude);
    if (gap < least || (gap == least && code % 2 == 0)) best = code;
  }
  return best;
}

template <class T>
void expect_exact(int mantissa, int bias, int codes) {
  const std::vector<double> values = positive_values<T>(mantissa, bias, codes);
  for (int code = 0; code < codes; ++code) {
    T number;
    number.bits = static_cast<std::uint8_t>(code);
    EXPECT_EQ(static_cast<double>(static_cast<float>(number)), values[static_cast<std::size_t>(code)]) << code;
    EXPECT_EQ(T(static_cast<float>(number)).bits, code);
    number.bits = static_cast<std::uint8_t>(code | 0x80);
    EXPECT_EQ(static_cast<double>(static_cast<float>(number)), -values[static_cast<std::size_t>(code)]) << code;
  }
  // Every midpoint and its two neighbouring singles, both signs: all rounding decisions there are.
  for (int code = 0; code + 1 < codes; ++code) {
    const double low = values[static_cast<std::size_t>(code)];
    const double high = values[static_cast<std::size_t>(code) + 1];
    const float middle = static_cast<float>((low + high) / 2);
    for (const float value : {std::nextafterf(middle, 0.0f), middle, std::nextafterf(middle, INFINITY)}) {
      const int expected = nearest(values, value);
      EXPECT_EQ(T(value).bits, expected) << value;
      EXPECT_EQ(T(-value).bits, expected | 0x80) << value;
    }
  }
  const int largest = codes - 1;
  for (const float value : {static_cast<float>(values.back()) * 1.03f, 1e30f, std::numeric_limits<float>::infinity()}) {
    EXPECT_EQ(T(value).bits, largest) << value;
    EXPECT_EQ(T(-value).bits, largest | 0x80) << value;
  }
  EXPECT_TRUE(std::isnan(static_cast<float>(T(std::numeric_limits<float>::quiet_NaN()))));
  EXPECT_EQ(T(std::numeric_limits<float>::denorm_min()).bits, 0);
}

TEST(DType, E4M3RoundsToNearestEvenAndSaturates) { expect_exact<E4M3>(3, 7, 0x7F); }
TEST(DType, E5M2RoundsToNearestEvenAndSaturates) { expect_exact<E5M2>(2, 15, 0x7C); }

TEST(DType, E8M0RoundsUp) {
  for (int code = 0; code < 255; ++code) {
    E8M0 scale;
    scale.bits = static_cast<std::uint8_t>(code);
    const float value = scale;
    EXPECT_EQ(static_cast<double>(value), std::ldexp(1.0, code - 127));
    EXPECT_EQ(E8M0(value).bits, code);
    if (code < 254) {
      EXPECT_EQ(E8M0(std::nextafterf(value, INFINITY)).bits, code + 1) << code;
    }
  }
  EXPECT_EQ(E8M0(std::nextafterf(0x1p127f, INFINITY)).bits, 255);
  EXPECT_EQ(E8M0(0.0f).bits, 0);
  EXPECT_EQ(E8M0(-1.0f).bits, 255);
  EXPECT_EQ(E8M0(INFINITY).bits, 255);
}

TEST(DType, BFloat16RoundsToNearestEven) {
  for (std::uint32_t code = 0; code < 0x10000u; ++code) {
    BFloat16 number;
    number.bits = static_cast<std::uint16_t>(code);
    const float value = number;
    if (std::isnan(value)) {
      EXPECT_TRUE(std::isnan(static_cast<float>(BFloat16(value))));
      continue;
    }
    ASSERT_EQ(BFloat16(value).bits, code);
    if (std::isinf(value) || (code & 0x7FFFu) == 0x7F7Fu) continue;
    const std::uint32_t middle = code << 16 | 0x8000u;  // between this code and the next larger magnitude
    ASSERT_EQ(BFloat16(std::bit_cast<float>(middle)).bits, code + (code & 1u));
    ASSERT_EQ(BFloat16(std::bit_cast<float>(middle - 1)).bits, code);
    ASSERT_EQ(BFloat16(std::bit_cast<float>(middle + 1)).bits, code + 1);
  }
}

TEST(DType, NamesAndSizes) {
  EXPECT_EQ(name(DType::e4m3), "e4m3");
  EXPECT_EQ(size_bytes(DType::bf16), 2);
  EXPECT_EQ(max_finite(DType::e4m3), 448.0);
}

}  // namespace
}  // namespace shoestring
