#include "parallel/sharding.h"

#include <gtest/gtest.h>

#include "tests/support/compare.h"
#include "tests/support/fill.h"
#include "tests/support/ranks.h"

namespace shoestring {
namespace {

TEST(ShardLayout, RangesCoverEverythingOnceAtBlockEdges) {
  for (const std::int64_t elements :
       {std::int64_t{0}, std::int64_t{1}, kShardBlock - 1, kShardBlock, kShardBlock + 1, 10 * kShardBlock + 3}) {
    for (const int ranks : {1, 2, 3, 8}) {
      const ShardLayout layout(elements, ranks);
      std::int64_t next = 0;
      for (int r = 0; r < ranks; ++r) {
        const ShardRange range = layout.range(r);
        EXPECT_EQ(range.begin, next);
        EXPECT_TRUE(range.begin % kShardBlock == 0 || range.begin == elements);
        EXPECT_LE(range.elements(), layout.widest());
        for (const std::int64_t element : {range.begin, range.end - 1}) {
          if (range.elements() == 0) continue;
          EXPECT_EQ(layout.owner(element), r);
        }
        next = range.end;
      }
      EXPECT_EQ(next, elements);
      // Nobody stores more than its share and a block.
      EXPECT_LE(layout.widest(), elements / ranks + kShardBlock);
    }
  }
}

TEST(AllGatherShards, EveryRankGetsTheWhole) {
  for (const DType dtype : {DType::f32, DType::bf16, DType::u8}) {
    for (const std::int64_t elements : {std::int64_t{5}, 3 * kShardBlock + 5}) {
      testing::run_ranks(4, [&](Communicator& world) {
        const Tensor want = testing::uniform(dtype, {elements}, 3, 1, 100);
        const ShardLayout layout(elements, world.size());
        const ShardRange mine = layout.range(world.rank());
        Tensor full(dtype, {elements});
        testing::assign(full.view().slice(0, mine.begin, mine.elements()),
                        want.view().slice(0, mine.begin, mine.elements()));
        all_gather_shards(world, layout, full);
        EXPECT_TRUE(testing::same_bits(full, want));
      });
    }
  }
}

}  // namespace
}  // namespace shoestring
