#include "data/least_hashes.h"

#include <gtest/gtest.h>

#include <cmath>
#include <set>
#include <vector>

#include "kernels/base/cpu.h"
#include "kernels/base/random.h"

namespace shoestring::least_hashes {
namespace {

using Least = std::array<std::uint32_t, kHashes>;

std::vector<std::uint32_t> shingles(std::uint32_t stream, std::size_t count) {
  const Random random(5, Purpose::test, stream);
  std::vector<std::uint32_t> made(count);
  for (std::size_t i = 0; i < count; ++i) made[i] = static_cast<std::uint32_t>(random.below(i, std::uint64_t{1} << 32));
  return made;
}

Least most() {
  Least least;
  least.fill(~std::uint32_t{0});
  return least;
}

TEST(LeastHashes, VectorsGiveTheSameNumbers) {
  if (!cpu_features().vectors()) GTEST_SKIP() << "this processor has no vector unit that is used";
  for (const std::size_t count : {0u, 1u, 2u, 3u, 7u, 8u, 255u, 1000u}) {
    const auto some = shingles(static_cast<std::uint32_t>(count), count);
    Least expected = most(), got = most();
    portable::take(some, expected);
    simd::take(some, got);
    EXPECT_EQ(got, expected) << count;
    portable::take(shingles(77, 3), expected);  // and goes on from what was least before
    simd::take(shingles(77, 3), got);
    EXPECT_EQ(got, expected) << count;
  }
}

TEST(LeastHashes, HashesArePermutationsThatDiffer) {
  const Family& hashes = family();
  std::set<std::pair<std::uint32_t, std::uint32_t>> different;
  for (std::size_t i = 0; i < hashes.a.size(); ++i) {
    EXPECT_EQ(hashes.a[i] % 2, 1u);
    different.emplace(hashes.a[i], hashes.b[i]);
  }
  EXPECT_EQ(different.size(), hashes.a.size());
}

// Of two sets with a known share in common, each hash has the same least shingle with that probability, independently
// enough for the standard error of 64 draws: over 200 pairs of sets, mean and variance.
TEST(LeastHashes, EstimateTheShareOfSetsInCommon) {
  constexpr std::size_t kShingles = 300, kCommon = 200;
  constexpr double kShare = static_cast<double>(kCommon) / (2 * kShingles - kCommon);
  constexpr int kPairs = 200;
  double sum = 0, squares = 0;
  for (std::uint32_t pair = 0; pair < kPairs; ++pair) {
    const auto all = shingles(1000 + pair, 2 * kShingles - kCommon);
    Least left = most(), right = most();
    take(std::span(all).first(kShingles), left);
    take(std::span(all).last(kShingles), right);
    int equal = 0;
    for (std::size_t i = 0; i < left.size(); ++i) equal += left[i] == right[i] ? 1 : 0;
    const double estimate = static_cast<double>(equal) / kHashes;
    sum += estimate;
    squares += (estimate - kShare) * (estimate - kShare);
  }
  const double variance = kShare * (1 - kShare) / kHashes;
  EXPECT_NEAR(sum / kPairs, kShare, 4 * std::sqrt(variance / kPairs));
  EXPECT_NEAR(squares / kPairs, variance, 4 * variance * std::sqrt(2.0 / kPairs));
}

}  // namespace
}  // namespace shoestring::least_hashes
