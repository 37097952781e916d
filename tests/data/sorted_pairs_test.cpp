#include "data/sorted_pairs.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>

#include "kernels/base/random.h"
#include "tests/support/temporary_folder.h"

namespace shoestring {
namespace {

// Half of them share one first number, as texts that are everywhere do.
std::vector<NumberPair> pairs_of(std::size_t count, std::uint32_t stream) {
  const Random random(16, Purpose::test, stream);
  std::vector<NumberPair> pairs(count);
  for (std::size_t i = 0; i < count; ++i) {
    pairs[i] = {i % 2 == 0 ? 7 : random.below(2 * i, 1'000'000), random.below(2 * i + 1, 1'000'000)};
  }
  return pairs;
}

std::vector<NumberPair> all_of(SortedPairs pairs) {
  std::vector<NumberPair> all;
  for (NumberPair pair; pairs.next(pair);) all.push_back(pair);
  return all;
}

void finish(PairSorter& sorter, const std::vector<NumberPair>& pairs) {
  for (const NumberPair& pair : pairs) sorter.add(pair);
  sorter.finish();
}

TEST(SortedPairs, AreInOrderHoweverManyRunsThereWere) {
  constexpr std::size_t kRun = PairSorter::kInMemory;
  for (const std::size_t count : {std::size_t{0}, std::size_t{1}, kRun - 1, kRun, kRun + 1, 3 * kRun + 5}) {
    const testing::TemporaryFolder folder;
    {
      PairSorter sorter(folder / "pairs");
      std::vector<NumberPair> pairs = pairs_of(count, 1);
      finish(sorter, pairs);
      std::sort(pairs.begin(), pairs.end());
      EXPECT_TRUE(all_of(SortedPairs({{sorter.path(), 0}})) == pairs) << count;
      EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder.path()), {}), 1) << "runs stay";
    }
    EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
  }
}

// More runs than are merged at once.
TEST(SortedPairs, RunsAreMergedMoreThanOnce) {
  const testing::TemporaryFolder folder;
  PairSorter sorter(folder / "pairs", 4);
  std::vector<NumberPair> pairs = pairs_of(4 * 64 * 64 + 4 * 65 + 1, 2);
  for (const NumberPair& pair : pairs) sorter.add(pair);
  EXPECT_LT(std::distance(std::filesystem::directory_iterator(folder.path()), {}), 70) << "runs pile up";
  sorter.finish();
  std::sort(pairs.begin(), pairs.end());
  EXPECT_TRUE(all_of(SortedPairs({{sorter.path(), 0}})) == pairs);
}

TEST(SortedPairs, OfSeveralFilesAreReadAsOne) {
  const testing::TemporaryFolder folder;
  std::vector<std::unique_ptr<PairSorter>> sorters;
  std::vector<SortedPairs::Source> sources;
  std::vector<NumberPair> expected;
  for (std::uint32_t file = 0; file < 5; ++file) {
    const std::uint64_t added = 2'000'000 * file;
    sorters.push_back(std::make_unique<PairSorter>(folder / std::to_string(file)));
    const std::vector<NumberPair> pairs = pairs_of(file == 3 ? 0 : 1000, file);
    finish(*sorters.back(), pairs);
    sources.push_back({sorters.back()->path(), added});
    for (const NumberPair& pair : pairs) expected.push_back({pair.first, pair.second + added});
  }
  std::sort(expected.begin(), expected.end());
  EXPECT_TRUE(all_of(SortedPairs(sources)) == expected);
  // Ranges that meet hold all of them once.
  const std::uint64_t borders[] = {0, 7, 8, 300'000, 999'999, 1'000'000};
  std::vector<NumberPair> together;
  for (std::size_t i = 0; i + 1 < std::size(borders); ++i) {
    for (const NumberPair& pair : all_of(SortedPairs(sources, borders[i], borders[i + 1] - 1))) {
      EXPECT_TRUE(pair.first >= borders[i] && pair.first < borders[i + 1]);
      together.push_back(pair);
    }
  }
  EXPECT_TRUE(together == expected);
  EXPECT_TRUE(all_of(SortedPairs(sources, 1'000'000)).empty());
}

}  // namespace
}  // namespace shoestring
