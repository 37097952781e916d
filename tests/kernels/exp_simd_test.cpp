#include <gtest/gtest.h>
#include <xxhash.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "kernels/base/dtype.h"

#include "kernels/simd_target.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "tests/kernels/exp_simd_test.cpp"
#include <hwy/foreach_target.h>

#include "kernels/exp_simd.h"

#ifndef SHOESTRING_TESTS_EXP_SIMD_VECTORS
#define SHOESTRING_TESTS_EXP_SIMD_VECTORS
namespace shoestring {
struct Vectors {
  float in[16], exp[16], exp2[16], sigmoid[16], complement[16], coarse[16], coarse_complement[16];
  BFloat16 narrow[16];
};
}  // namespace shoestring
#endif

HWY_BEFORE_NAMESPACE();
namespace shoestring::HWY_NAMESPACE {

void evaluate(Vectors& v) {
  const lanes::Floats x = lanes::load(v.in);
  lanes::store(v.exp, lanes::exp(x));
  lanes::store(v.exp2, lanes::exp2(x));
  lanes::store(v.sigmoid, lanes::sigmoid(x));
  lanes::store(v.complement, lanes::sigmoid_and_complement(x).complement);
  lanes::store(v.coarse, lanes::coarse_sigmoid_and_complement(x).value);
  lanes::store(v.coarse_complement, lanes::coarse_sigmoid_and_complement(x).complement);
  lanes::store(v.narrow, x);
}

}  // namespace shoestring::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace shoestring {
namespace {

double ulps(float actual, double expected) {
  int exponent = 0;
  std::frexp(std::max(expected, 0x1p-126), &exponent);
  return std::abs(static_cast<double>(actual) - expected) / std::ldexp(1.0, exponent - 24);
}

void expect_bounds(const Vectors& v, int i) {
  ASSERT_EQ(v.narrow[i].bits, BFloat16(v.in[i]).bits) << v.in[i];
  if (std::isnan(v.in[i])) {
    ASSERT_TRUE(std::isnan(v.exp[i]) && std::isnan(v.exp2[i]) && std::isnan(v.sigmoid[i]) && std::isnan(v.coarse[i]));
    return;
  }
  const double x = static_cast<double>(v.in[i]);
  const double expected = std::exp(x);
  if (expected < static_cast<double>(std::numeric_limits<float>::max())) {
    ASSERT_LE(ulps(v.exp[i], expected), 1.0) << x;
  } else {
    ASSERT_TRUE(std::isinf(v.exp[i])) << x;
  }
  if (x < -126) {
    ASSERT_EQ(v.exp2[i], 0.0f) << x;
  } else {
    ASSERT_LE(ulps(v.exp2[i], std::exp2(std::min(x, 127.0))), 3.0) << x;
  }
  if (std::abs(x) <= 80) {
    const double sigmoid = 1 / (1 + std::exp(-x)), complement = 1 / (1 + std::exp(x));
    ASSERT_LE(std::abs(static_cast<double>(v.coarse[i]) / sigmoid - 1), std::exp2(-13.5)) << x;
    ASSERT_LE(std::abs(static_cast<double>(v.coarse_complement[i]) / complement - 1), std::exp2(-13.5)) << x;
  }
  if (x >= -80) {
    ASSERT_LE(ulps(v.sigmoid[i], 1 / (1 + std::exp(-x))), 3.0) << x;
    const double complement = 1 / (1 + std::exp(std::min(x, 80.0)));
    ASSERT_TRUE(x > 80 || ulps(v.complement[i], complement) <= 4.0) << x;
  } else {
    ASSERT_LE(std::abs(static_cast<double>(v.sigmoid[i]) - 1 / (1 + std::exp(-x))), 2e-35) << x;
  }
}

// Every 3001st float, all exponents and both signs; the stated bounds were checked once on every one.
TEST(ExpSimd, StaysWithinItsBounds) {
  if (!cpu_features().vectors()) GTEST_SKIP() << "the processor has no vectors that rows are written for";
  const auto evaluate = SHOESTRING_SIMD(evaluate);
  Vectors v;
  int lane = 0;
  for (std::uint64_t bits = 0; bits < (std::uint64_t{1} << 32); bits += 3001) {
    v.in[lane++] = std::bit_cast<float>(static_cast<std::uint32_t>(bits));
    if (lane < 16) continue;
    lane = 0;
    evaluate(v);
    for (int i = 0; i < 16; ++i) ASSERT_NO_FATAL_FAILURE(expect_bounds(v, i));
  }
}

// Recorded on AVX2; every other set of vectors must give the same bits.
TEST(ExpSimd, GivesTheRecordedBits) {
  if (!cpu_features().vectors()) GTEST_SKIP() << "the processor has no vectors that rows are written for";
  std::vector<float> results;
  Vectors v;
  for (int first = -120000; first < 120000; first += 16) {
    for (int i = 0; i < 16; ++i) v.in[i] = static_cast<float>(first + i) / 1000.0f;
    SHOESTRING_SIMD(evaluate)(v);
    for (const auto* of : {&v.exp, &v.exp2, &v.sigmoid, &v.complement, &v.coarse, &v.coarse_complement}) {
      results.insert(results.end(), *of, *of + 16);
    }
  }
  EXPECT_EQ(XXH3_64bits(results.data(), results.size() * sizeof(float)), 0xB7BB1EB1BAD57CE1u);
}

TEST(ExpSimd, SpecialValues) {
  if (!cpu_features().vectors()) GTEST_SKIP() << "the processor has no vectors that rows are written for";
  Vectors v{};
  v.in[1] = INFINITY;
  v.in[2] = -INFINITY;
  v.in[3] = -0.0f;
  SHOESTRING_SIMD(evaluate)(v);
  EXPECT_EQ(v.exp[0], 1.0f);
  EXPECT_EQ(v.exp[1], INFINITY);
  EXPECT_EQ(v.exp[2], 0.0f);
  EXPECT_EQ(v.exp[3], 1.0f);
  EXPECT_EQ(v.exp2[0], 1.0f);
  EXPECT_EQ(v.exp2[1], 0x1p127f);
  EXPECT_EQ(v.exp2[2], 0.0f);
  EXPECT_EQ(v.exp2[3], 1.0f);
  EXPECT_EQ(v.sigmoid[0], 0.5f);
  EXPECT_EQ(v.sigmoid[1], 1.0f);
  EXPECT_LT(v.sigmoid[2], 2e-35f);
}

}  // namespace
}  // namespace shoestring
#endif
