#include "parallel/placement.h"

#include <gtest/gtest.h>

#include "kernels/base/workers.h"
#include "tests/support/ranks.h"

namespace shoestring {
namespace {

TEST(Placement, RanksOfOneMachineShareItsCores) {
  testing::run_ranks(3, [](Communicator& world) { EXPECT_EQ(ranks_sharing(world, Workers::cores_name()), 3); });
}

TEST(Placement, TwoMachinesOfUnequalNumbersOfRanks) {
  testing::run_ranks(5, [](Communicator& world) {
    const bool first = world.rank() % 2 == 0;
    EXPECT_EQ(ranks_sharing(world, first ? "a:ff" : "b:ff"), first ? 3 : 2);
  });
}

TEST(Placement, RanksBoundToCoresShareNone) {
  testing::run_ranks(
      4, [](Communicator& world) { EXPECT_EQ(ranks_sharing(world, "a:" + std::to_string(1 << world.rank())), 1); });
}

}  // namespace
}  // namespace shoestring
