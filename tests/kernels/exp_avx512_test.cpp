#include "kernels/exp_avx512.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

#include "kernels/base/cpu.h"
#include "kernels/lanes_avx512.h"

// GCC 12 takes undefined operands inside its own intrinsics for uninitialised values (its bug 105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"

namespace shoestring {
namespace {

struct Vectors {
  float in[16], exp[16], sigmoid[16], coarse[16], complement[16];
  BFloat16 narrow[16];
};

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq")
void evaluate(Vectors& v) {
  const __m512 x = _mm512_loadu_ps(v.in);
  _mm512_storeu_ps(v.exp, lanes_avx512::exp(x));
  _mm512_storeu_ps(v.sigmoid, lanes_avx512::sigmoid(x));
  const lanes_avx512::Sigmoid coarse = lanes_avx512::coarse_sigmoid_and_complement(x);
  _mm512_storeu_ps(v.coarse, coarse.value);
  _mm512_storeu_ps(v.complement, coarse.complement);
  lanes_avx512::store(v.narrow, x);
}
#pragma GCC pop_options

double ulps(float actual, double expected) {
  int exponent = 0;
  std::frexp(std::max(expected, 0x1p-126), &exponent);
  return std::abs(static_cast<double>(actual) - expected) / std::ldexp(1.0, exponent - 24);
}

// Every 3001st float, all exponents and both signs; the stated bounds were checked once on all 2^32.
TEST(ExpAvx512, StaysWithinItsBounds) {
  if (!cpu_features().avx512) GTEST_SKIP() << "the processor has no AVX-512";
  Vectors v;
  int lane = 0;
  for (std::uint64_t bits = 0; bits < (std::uint64_t{1} << 32); bits += 3001) {
    v.in[lane++] = std::bit_cast<float>(static_cast<std::uint32_t>(bits));
    if (lane < 16) continue;
    lane = 0;
    evaluate(v);
    for (int i = 0; i < 16; ++i) {
      ASSERT_EQ(v.narrow[i].bits, BFloat16(v.in[i]).bits) << v.in[i];
      if (std::isnan(v.in[i])) {
        ASSERT_TRUE(std::isnan(v.exp[i]) && std::isnan(v.sigmoid[i]) && std::isnan(v.coarse[i]));
        continue;
      }
      const double x = static_cast<double>(v.in[i]);
      const double expected = std::exp(x);
      if (expected < static_cast<double>(std::numeric_limits<float>::max())) {
        ASSERT_LE(ulps(v.exp[i], expected), 1.0) << x;
      } else {
        ASSERT_TRUE(std::isinf(v.exp[i])) << x;
      }
      const double sigmoid = 1 / (1 + std::exp(-x));
      if (std::abs(x) <= 80) {
        const double complement = 1 / (1 + std::exp(x));
        ASSERT_LE(std::abs(static_cast<double>(v.coarse[i]) - sigmoid), std::pow(2.0, -13.5) * sigmoid) << x;
        ASSERT_LE(std::abs(static_cast<double>(v.complement[i]) - complement), std::pow(2.0, -13.5) * complement) << x;
      }
      if (x >= -80) {
        ASSERT_LE(ulps(v.sigmoid[i], sigmoid), 3.0) << x;
      } else {
        ASSERT_LE(std::abs(static_cast<double>(v.sigmoid[i]) - sigmoid), 2e-35) << x;
      }
    }
  }
}

TEST(ExpAvx512, SpecialValues) {
  if (!cpu_features().avx512) GTEST_SKIP() << "the processor has no AVX-512";
  Vectors v{};
  v.in[1] = INFINITY;
  v.in[2] = -INFINITY;
  v.in[3] = -0.0f;
  evaluate(v);
  EXPECT_EQ(v.exp[0], 1.0f);
  EXPECT_EQ(v.exp[1], INFINITY);
  EXPECT_EQ(v.exp[2], 0.0f);
  EXPECT_EQ(v.exp[3], 1.0f);
  EXPECT_EQ(v.sigmoid[0], 0.5f);
  EXPECT_EQ(v.sigmoid[1], 1.0f);
  EXPECT_LT(v.sigmoid[2], 2e-35f);
}

}  // namespace
}  // namespace shoestring
