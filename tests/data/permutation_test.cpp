#include "data/permutation.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

namespace shoestring {
namespace {

TEST(Permutation, IsABijectionForEverySize) {
  const Random random(3, Purpose::test);
  for (const std::uint64_t size : {1u, 2u, 3u, 4u, 5u, 7u, 8u, 9u, 31u, 64u, 65u, 1000u, 4097u, 100000u}) {
    const ItemPermutation permutation(size, random, size);
    std::vector<bool> seen(size, false);
    for (std::uint64_t item = 0; item < size; ++item) {
      const std::uint64_t to = permutation(item);
      ASSERT_LT(to, size);
      ASSERT_FALSE(seen[to]) << size;
      seen[to] = true;
    }
  }
}

TEST(Permutation, KeyDecidesTheOrder) {
  const Random random(3, Purpose::test);
  const ItemPermutation one(1000, random, 1);
  const ItemPermutation same(1000, random, 1);
  const ItemPermutation other(1000, random, 2);
  int equal = 0;
  for (std::uint64_t item = 0; item < 1000; ++item) {
    EXPECT_EQ(one(item), same(item));
    equal += one(item) == other(item) ? 1 : 0;
  }
  EXPECT_LT(equal, 20);
}

// Where an item goes is uniform over keys: chi-square over 16 places, 15 degrees of freedom, 99.9% quantile 37.7.
TEST(Permutation, PlacesAreUniform) {
  const Random random(5, Purpose::test);
  for (const std::uint64_t size : {16u, 160u}) {
    for (const std::uint64_t item : {std::uint64_t{0}, size / 2, size - 1}) {
      std::vector<int> hits(16, 0);
      constexpr int kKeys = 16000;
      for (std::uint64_t key = 0; key < kKeys; ++key) hits[ItemPermutation(size, random, key)(item) * 16 / size] += 1;
      double chi = 0;
      for (const int hit : hits) chi += std::pow(hit - kKeys / 16.0, 2) / (kKeys / 16.0);
      EXPECT_LT(chi, 37.7) << size << " " << item;
    }
  }
}

}  // namespace
}  // namespace shoestring
