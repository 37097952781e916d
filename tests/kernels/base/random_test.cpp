#include "kernels/base/random.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>

namespace shoestring {
namespace {

void expect_words(const RandomBits& bits, const std::array<std::uint32_t, 4>& expected) {
  for (std::size_t i = 0; i < 4; ++i) EXPECT_EQ(bits.word[i], expected[i]) << i;
}

TEST(Random, PhiloxMatchesThePublishedVectors) {  // Random123, kat_vectors, philox4x32 10
  expect_words(philox({{0, 0, 0, 0}}, 0, 0), {0x6627e8d5u, 0xe169c58du, 0xbc57ac4cu, 0x9b00dbd8u});
  expect_words(philox({{~0u, ~0u, ~0u, ~0u}}, ~0u, ~0u), {0x408f276du, 0x41c83b0eu, 0xa20bc7c6u, 0x6d5451fdu});
  expect_words(philox({{0x243f6a88u, 0x85a308d3u, 0x13198a2eu, 0x03707344u}}, 0xa4093822u, 0x299f31d0u),
               {0xd16cfe09u, 0x94fdccebu, 0x5001e420u, 0x24126ea1u});
}

TEST(Random, DependsOnSeedPurposeStreamAndIndexOnly) {
  const Random random(7, Purpose::test, 3);
  EXPECT_EQ(random.u64(11), Random(7, Purpose::test, 3).u64(11));
  EXPECT_NE(random.u64(11), random.u64(12));
  EXPECT_NE(random.u64(11), Random(8, Purpose::test, 3).u64(11));
  EXPECT_NE(random.u64(11), Random(7, Purpose::mixture, 3).u64(11));
  EXPECT_NE(random.u64(11), Random(7, Purpose::test, 4).u64(11));
  EXPECT_NE(random.u64(std::uint64_t{1} << 32), random.u64(0));
}

TEST(Random, MomentsOfUniformAndNormal) {
  const Random random(1, Purpose::test);
  constexpr std::uint64_t kCount = 1 << 16;
  double sum = 0;
  double normal_sum = 0;
  double normal_square = 0;
  for (std::uint64_t i = 0; i < kCount; ++i) {
    const double u = random.uniform(i);
    ASSERT_GE(u, 0.0);
    ASSERT_LT(u, 1.0);
    sum += u;
    const double n = random.normal(i);
    ASSERT_TRUE(std::isfinite(n));
    normal_sum += n;
    normal_square += n * n;
  }
  // Five standard deviations of each mean: 5 * sqrt(variance / count).
  EXPECT_NEAR(sum / kCount, 0.5, 5 * std::sqrt(1.0 / 12 / kCount));
  EXPECT_NEAR(normal_sum / kCount, 0.0, 5 * std::sqrt(1.0 / kCount));
  EXPECT_NEAR(normal_square / kCount, 1.0, 5 * std::sqrt(2.0 / kCount));
}

TEST(Random, BelowStaysBelowAndReachesEverything) {
  const Random random(2, Purpose::test);
  std::array<int, 7> seen{};
  for (std::uint64_t i = 0; i < 7000; ++i) {
    const std::uint64_t draw = random.below(i, 7);
    ASSERT_LT(draw, 7u);
    ++seen[draw];
  }
  for (const int count : seen) EXPECT_NEAR(count, 1000, 5 * std::sqrt(7000.0 * 6 / 49));
  EXPECT_EQ(random.below(5, 1), 0u);
}

}  // namespace
}  // namespace shoestring
