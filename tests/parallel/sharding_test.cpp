#include "parallel/sharding.h"

#include <gtest/gtest.h>

#include <set>

#include "tests/support/compare.h"
#include "tests/support/fill.h"
#include "tests/support/ranks.h"

namespace shoestring {
namespace {

TEST(ShardLayout, RangesCoverEverythingOnceAtBlockEdges) {
  for (const std::int64_t elements :
       {std::int64_t{0}, std::int64_t{1}, kShardBlock - 1, kShardBlock, kShardBlock + 1, 1000 * kShardBlock + 3}) {
    for (const int ranks : {1, 2, 3, 8}) {
      const ShardLayout layout(elements, ranks);
      std::vector<std::int64_t> owned(static_cast<std::size_t>(ranks), 0);
      std::int64_t next = 0;
      for (const ShardRange& range : layout.ranges()) {
        EXPECT_EQ(range.begin, next);
        EXPECT_GT(range.elements(), 0);
        EXPECT_EQ(range.begin % kShardBlock, 0);
        owned[static_cast<std::size_t>(range.owner)] += range.elements();
        next = range.end;
      }
      EXPECT_EQ(next, elements);
      for (int rank = 0; rank < ranks; ++rank) {
        EXPECT_EQ(layout.elements_of(rank), owned[static_cast<std::size_t>(rank)]);
        // Nobody stores more than its share and one turn of dealing.
        EXPECT_LE(layout.elements_of(rank), elements / ranks + elements / (8 * ranks) + kShardBlock);
      }
    }
  }
}

// A part of the buffer that is complete before the rest has something for everybody to add.
TEST(ShardLayout, EveryEighthIsSharedByAll) {
  const std::int64_t elements = 960 * kShardBlock;
  const ShardLayout layout(elements, 4);
  for (std::int64_t eighth = 0; eighth < 8; ++eighth) {
    std::set<int> owners;
    for (const ShardRange& range : layout.ranges()) {
      if (range.begin < (eighth + 1) * elements / 8 && range.end > eighth * elements / 8) owners.insert(range.owner);
    }
    EXPECT_EQ(owners.size(), 4);
  }
}

TEST(ShardLayout, RangesFollowEachOther) {
  EXPECT_EQ(ShardLayout({{0, 3, 1}, {3, 5, 1}, {5, 5, 0}, {5, 9, 0}}, 2).ranges(),
            (std::vector<ShardRange>{{0, 5, 1}, {5, 9, 0}}));
  EXPECT_THROW(ShardLayout({{0, 3, 1}, {4, 5, 0}}, 2), Error);
  EXPECT_THROW(ShardLayout({{0, 3, 2}}, 2), Error);
}

TEST(AllGatherShards, EveryRankGetsTheWhole) {
  for (const DType dtype : {DType::f32, DType::bf16, DType::u8}) {
    for (const std::int64_t elements : {std::int64_t{5}, 3 * kShardBlock + 5}) {
      testing::run_ranks(4, [&](Communicator& world) {
        const Tensor want = testing::uniform(dtype, {elements}, 3, 1, 100);
        const ShardLayout layout(elements, world.size());
        Tensor full(dtype, {elements});
        for (const ShardRange& range : layout.ranges()) {
          if (range.owner != world.rank()) continue;
          testing::assign(full.view().slice(0, range.begin, range.elements()),
                          want.view().slice(0, range.begin, range.elements()));
        }
        all_gather_shards(world, layout, full);
        EXPECT_TRUE(testing::same_bits(full, want));
      });
    }
  }
}

}  // namespace
}  // namespace shoestring
