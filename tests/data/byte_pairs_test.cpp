#include "data/byte_pairs.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <string>
#include <utility>

#include "kernels/base/random.h"

namespace shoestring {
namespace {

using Ids = std::vector<std::uint32_t>;

std::array<std::uint32_t, 256> plain_bytes() {
  std::array<std::uint32_t, 256> bytes{};
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::uint32_t>(i);
  return bytes;
}

// Merges over the letters a to d, each of two tokens that are there by then.
std::vector<BytePairs::Merge> random_merges(std::uint64_t seed, std::uint32_t count) {
  const Random random(seed, Purpose::test);
  std::vector<BytePairs::Merge> merges;
  for (std::uint32_t i = 0; i < count; ++i) {
    const auto pick = [&](std::uint64_t draw) {
      const auto one = static_cast<std::uint32_t>(random.below(draw, 4 + i));
      return one < 4 ? 'a' + one : 256 + one - 4;
    };
    merges.push_back({pick(2 * i), pick(2 * i + 1), 256 + i});
  }
  return merges;
}

// As the definition reads: the pair of the lowest rank, the leftmost of equals, until there is none.
Ids joined(const std::string& word, const std::vector<BytePairs::Merge>& merges) {
  std::map<std::pair<std::uint32_t, std::uint32_t>, std::size_t> ranks;
  for (std::size_t i = 0; i < merges.size(); ++i) ranks[{merges[i].left, merges[i].right}] = i;
  Ids ids(word.begin(), word.end());
  while (true) {
    std::size_t best = merges.size(), place = 0;
    for (std::size_t i = 0; i + 1 < ids.size(); ++i) {
      const auto rank = ranks.find({ids[i], ids[i + 1]});
      if (rank == ranks.end() || rank->second >= best) continue;
      best = rank->second;
      place = i;
    }
    if (best == merges.size()) return ids;
    ids[place] = merges[best].merged;
    ids.erase(ids.begin() + static_cast<std::ptrdiff_t>(place) + 1);
  }
}

std::string random_word(const Random& random, std::uint64_t seed, std::size_t size) {
  std::string word;
  for (std::size_t i = 0; i < size; ++i) word.push_back(static_cast<char>('a' + random.below(seed * 512 + i, 4)));
  return word;
}

TEST(BytePairs, JoinsAsTheDefinitionReads) {
  const Random random(3, Purpose::test);
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    const auto merges = random_merges(seed, 30);
    const BytePairs pairs(plain_bytes(), merges);
    WordCache cache;
    std::uint64_t draw = seed * 1000;
    // Both sides of the border between the short way and the long, of what is kept in a cache, and longer.
    for (const std::size_t size : {1, 2, 3, 7, 30, 31, 32, 47, 48, 49, 300}) {
      const std::string word = random_word(random, ++draw, size);
      const Ids expected = joined(word, merges);
      Ids ids;
      pairs.encode(word, ids);
      EXPECT_EQ(ids, expected) << word;
      for (int i = 0; i < 2; ++i) {
        ids.clear();
        pairs.encode(word, cache, ids);
        EXPECT_EQ(ids, expected) << word << ", time " << i;
      }
    }
  }
}

TEST(BytePairs, WordsThatShareAPlaceInTheCacheStayApart) {
  const auto merges = random_merges(1, 30);
  const BytePairs pairs(plain_bytes(), merges);
  WordCache cache;
  const Random random(4, Purpose::test);
  for (std::uint64_t i = 0; i < 100000; ++i) {  // three times its places
    const std::string word = random_word(random, i % 50000, 1 + i % 17);
    Ids plain, cached;
    pairs.encode(word, plain);
    pairs.encode(word, cache, cached);
    ASSERT_EQ(plain, cached) << word;
  }
}

TEST(BytePairs, NulsAreNotTheEndOfAWord) {
  const BytePairs pairs(plain_bytes(), {});
  WordCache cache;
  for (const std::size_t size : {3, 1, 2, 3}) {
    Ids ids;
    pairs.encode(std::string(size, '\0'), cache, ids);
    EXPECT_EQ(ids, Ids(size, 0));
  }
}

TEST(BytePairs, AWholeWordNeedsNoMerges) {
  const BytePairs pairs(plain_bytes(), {{'a', 'b', 256}}, {{"abc", 300}});
  Ids ids;
  pairs.encode("abc", ids);
  pairs.encode("abcd", ids);
  EXPECT_EQ(ids, (Ids{300, 256, 'c', 'd'}));
}

TEST(BytePairs, AByteWithoutAnIdIsLeftOut) {
  auto bytes = plain_bytes();
  bytes['x'] = BytePairs::kNoId;
  const BytePairs pairs(bytes, {{'a', 'b', 256}});
  for (const std::size_t more : {0, 60}) {
    Ids ids;
    pairs.encode("axb" + std::string(more, 'x') + "x", ids);
    EXPECT_EQ(ids, Ids{256});
  }
  Ids ids;
  pairs.encode(std::string(60, 'x'), ids);
  EXPECT_TRUE(ids.empty());
}

TEST(BytePairs, OfAPairThatComesTwiceTheLaterPlaceCounts) {
  const BytePairs pairs(plain_bytes(), {{'a', 'b', 256}, {'b', 'c', 257}, {'a', 'b', 256}});
  Ids ids;
  pairs.encode("abc", ids);
  EXPECT_EQ(ids, (Ids{'a', 257}));
}

}  // namespace
}  // namespace shoestring
