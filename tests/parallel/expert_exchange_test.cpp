#include "parallel/expert_exchange.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/parallel/communicator_conformance.h"
#include "tests/support/ranks.h"

namespace shoestring {
namespace {

// The cases that MPI runs too (communicator_conformance.cpp), on more shapes of groups.
TEST(ExpertExchange, MovesEveryRowThereAndBack) {
  for (const int ranks : {1, 2, 3, 4, 6, 8}) {
    testing::run_ranks(ranks, [](Communicator& world) { testing::experts_exchange_rows(world); });
  }
}

TEST(ExpertExchange, WhatDoesNotComeOutEvenIsRefused) {
  testing::run_ranks(3, [](Communicator& world) {
    EXPECT_THROW(ExpertExchange(world, 4), Error);
    EXPECT_THROW(ExpertExchange(world, 6, 2), Error);
    EXPECT_THROW(ExpertExchange(world, 0), Error);
  });
}

TEST(ExpertExchange, RowsThatDoNotFitThePlanAreRefused) {
  const auto self = self_communicator();
  ExpertExchange exchange(*self, 2);
  const std::vector<std::int64_t> offsets = {0, 1, 3};
  const std::vector<std::int32_t> slots = {0, 1, 2};
  const ExpertExchange::Plan plan = exchange.plan(exchange.announce(offsets, slots, 1));
  EXPECT_EQ(plan.rows(), 3);
  Tensor rows(DType::f32, {3, 4}), fewer(DType::f32, {2, 4}), narrow(DType::f32, {3, 3}), halves(DType::bf16, {3, 4});
  EXPECT_THROW(exchange.dispatch(plan, fewer, rows), Error);
  EXPECT_THROW(exchange.dispatch(plan, rows, fewer), Error);
  EXPECT_THROW(exchange.combine(plan, rows, narrow), Error);
  EXPECT_THROW(exchange.combine(plan, halves, rows), Error);
  const std::vector<std::int64_t> falling = {0, 2, 1};
  EXPECT_THROW(exchange.plan(exchange.announce(falling, slots, 1)), Error);
}

TEST(ExpertExchange, NodesAreNeighboursInEqualNumbers) {
  const auto nodes = [](const std::vector<std::string>& hosts) {
    int seen = -1;
    testing::run_ranks(static_cast<int>(hosts.size()), [&](Communicator& world) {
      const int got = ranks_per_node(world, hosts[static_cast<std::size_t>(world.rank())]);
      if (world.rank() == 0) seen = got;
    });
    return seen;
  };
  EXPECT_EQ(nodes({"a", "a", "b", "b"}), 2);
  EXPECT_EQ(nodes({"a", "b", "c"}), 1);
  EXPECT_EQ(nodes({"a", "a"}), 0);            // one host
  EXPECT_EQ(nodes({"a", "a", "b"}), 0);       // unequal
  EXPECT_EQ(nodes({"a", "b", "a", "b"}), 0);  // no neighbours
  EXPECT_EQ(nodes({"a", "a", "b", "c"}), 0);
}

}  // namespace
}  // namespace shoestring
