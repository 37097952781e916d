#include "parallel/reduction.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "kernels/base/workers.h"
#include "tests/support/compare.h"
#include "tests/support/fill.h"
#include "tests/support/ranks.h"

namespace shoestring {
namespace {

Tensor group_gradient(DType dtype, std::int64_t elements, int group) {
  return testing::heavy_tailed(dtype, {elements}, static_cast<std::uint64_t>(1000 + group));
}

/// ((g0 + g1) + g2) + ... in the tensor's own format.
template <class Element>
Tensor left_fold(DType dtype, std::int64_t elements, int groups) {
  Tensor total = group_gradient(dtype, elements, 0);
  for (int g = 1; g < groups; ++g) {
    const Tensor part = group_gradient(dtype, elements, g);
    for (std::int64_t i = 0; i < elements; ++i) total.as<Element>()[i] += part.as<Element>()[i];
  }
  return total;
}

/// The total as every rank sees it, and what the owners hold, for `groups` groups on `ranks` ranks.
void expect_canonical(DType dtype, std::int64_t elements, int ranks, int groups, int steps = 1) {
  SCOPED_TRACE(fmt::format("{} elements, {} groups on {} ranks", elements, groups, ranks));
  const Tensor want =
      dtype == DType::f32 ? left_fold<float>(dtype, elements, groups) : left_fold<double>(dtype, elements, groups);
  testing::run_ranks(ranks, [&](Communicator& world) {
    Workers workers(1);
    Stream stream(workers);
    CanonicalReducer reducer(world, elements, groups / ranks, dtype, stream);
    for (int step = 0; step < steps; ++step) {
      reducer.reset();
      Tensor gradient;
      for (int round = 0; round < reducer.rounds(); ++round) {
        gradient = group_gradient(dtype, elements, group_of(round, world.rank(), ranks));
        reducer.fold(gradient);
      }
      const ShardRange mine = reducer.layout().range(world.rank());
      EXPECT_TRUE(testing::same_bits(reducer.owned_shard(), want.view().slice(0, mine.begin, mine.elements())));
      Tensor full(dtype, {elements});
      reducer.gather(full);
      EXPECT_TRUE(testing::same_bits(full, want));
      if (reducer.rounds() == 1) {  // in place
        reducer.gather(gradient);
        EXPECT_TRUE(testing::same_bits(gradient, want));
      }
    }
  });
}

TEST(CanonicalReducer, BitsDoNotDependOnRanks) {
  for (const int groups : {1, 2, 4, 8}) {
    for (const int ranks : {1, 2, 4}) {
      if (groups % ranks != 0) continue;
      expect_canonical(DType::f32, 3 * kShardBlock + 17, ranks, groups);
    }
  }
}

TEST(CanonicalReducer, OddSizesAndFormats) {
  expect_canonical(DType::f32, 1, 4, 8);
  expect_canonical(DType::f32, kShardBlock, 2, 4);  // the second rank owns nothing
  expect_canonical(DType::f64, 2 * kShardBlock + 1, 2, 4);
  expect_canonical(DType::f32, 5 * kShardBlock, 3, 6, 2);
  expect_canonical(DType::f32, (std::int64_t{1} << 18) * 2 + 3 * kShardBlock + 5, 2, 4);  // several pieces
}

// Ranks that hold one gradient for each of several groups, as those of an expert group do.
TEST(CanonicalReducer, SeveralGroupsOnARankAreTheirPlaceInTheOrder) {
  constexpr int kGroups = 8;
  const std::int64_t elements = 3 * kShardBlock + 17;
  const Tensor want = left_fold<float>(DType::f32, elements, kGroups);
  for (const int partials : {2, 4}) {
    for (const int ranks : {1, 2}) {
      const int rounds = kGroups / (partials * ranks);
      testing::run_ranks(ranks, [&](Communicator& world) {
        Workers workers(1);
        Stream stream(workers);
        CanonicalReducer reducer(world, elements, rounds, DType::f32, stream, partials);
        Tensor gradients(DType::f32, {partials, elements});
        for (int round = 0; round < rounds; ++round) {
          for (int p = 0; p < partials; ++p) {
            const Tensor one = group_gradient(DType::f32, elements, (round * ranks + world.rank()) * partials + p);
            std::copy_n(one.as<float>(), elements, gradients.as<float>() + p * elements);
          }
          reducer.fold(gradients);
        }
        const TensorView first = gradients.view().slice(0, 0, 1).reshaped({elements});
        reducer.gather(first);
        EXPECT_TRUE(testing::same_bits(first, want)) << partials << " on each of " << ranks;
      });
    }
  }
}

// A rank sends what others own of each of its gradients once a round, and at the end what it owns to each of them.
TEST(CanonicalReducer, BytesAreThoseOfTheFormula) {
  constexpr int kRanks = 4;
  constexpr int kRounds = 2;
  constexpr int kPartials = 2;
  const std::int64_t elements = 5 * kShardBlock + 3;
  testing::run_ranks(kRanks, [&](Communicator& world) {
    Workers workers(1);
    Stream stream(workers);
    CanonicalReducer reducer(world, elements, kRounds, DType::f32, stream, kPartials);
    const std::int64_t own = reducer.layout().range(world.rank()).elements();
    Tensor gradients(DType::f32, {kPartials, elements});
    for (int round = 0; round < kRounds; ++round) reducer.fold(gradients);
    EXPECT_EQ(world.sent_bytes(), 4 * kRounds * kPartials * (elements - own));
    const std::int64_t before = world.sent_bytes();
    reducer.gather(gradients.view().slice(0, 0, 1).reshaped({elements}));
    EXPECT_EQ(world.sent_bytes() - before, 4 * (kRanks - 1) * own);
  });
}

TEST(CanonicalReducer, AnotherOrderShowsInTheBits) {
  // The companion: the comparison above sees a fold in another order.
  const std::int64_t elements = 1000;
  Tensor backward = group_gradient(DType::f32, elements, 3);
  for (const int g : {2, 1, 0}) {
    const Tensor part = group_gradient(DType::f32, elements, g);
    for (std::int64_t i = 0; i < elements; ++i) backward.as<float>()[i] += part.as<float>()[i];
  }
  EXPECT_FALSE(testing::same_bits(backward, left_fold<float>(DType::f32, elements, 4)));
}

TEST(CanonicalReducer, MisuseIsRefused) {
  const auto self = self_communicator();
  Workers workers(1);
  Stream stream(workers);
  CanonicalReducer reducer(*self, 10, 2, DType::f32, stream);
  Tensor gradient(DType::f32, {10});
  Tensor shorter(DType::f32, {9});
  EXPECT_THROW(reducer.fold(shorter), Error);
  reducer.fold(gradient);
  EXPECT_THROW(reducer.owned_shard(), Error);
  reducer.fold(gradient);
  EXPECT_THROW(reducer.fold(gradient), Error);
  EXPECT_THROW(CanonicalReducer(*self, 10, 1, DType::bf16, stream), Error);
}

TEST(ReductionGroup, CoversTheGlobalBatchInOrder) {
  for (const int groups : {1, 2, 3, 8}) {
    std::int64_t next = 0;
    for (int g = 0; g < groups; ++g) {
      const GroupRange range = reduction_group(11, groups, g);
      EXPECT_EQ(range.begin, next);
      EXPECT_GE(range.end - range.begin, 11 / groups);
      next = range.end;
    }
    EXPECT_EQ(next, 11);
  }
  EXPECT_THROW(reduction_group(3, 4, 0), Error);
}

TEST(ScalarReducer, BitsDoNotDependOnRanks) {
  const auto value = [](int group, int i) { return 1.0 / (1 + group * 7 + i) * (group % 2 == 0 ? 1e6 : 1e-6); };
  std::vector<double> want = {0, 0, 0};
  for (int i = 0; i < 3; ++i) {
    want[static_cast<std::size_t>(i)] = value(0, i);
    for (int g = 1; g < 8; ++g) want[static_cast<std::size_t>(i)] += value(g, i);
  }
  for (const int ranks : {1, 2, 4, 8}) {
    testing::run_ranks(ranks, [&](Communicator& world) {
      ScalarReducer reducer(world, 3);
      for (int step = 0; step < 2; ++step) {
        reducer.reset();
        for (int round = 0; round < 8 / ranks; ++round) {
          const int group = group_of(round, world.rank(), ranks);
          const std::vector<double> mine = {value(group, 0), value(group, 1), value(group, 2)};
          reducer.fold(mine);
        }
        EXPECT_EQ(std::vector<double>(reducer.totals().begin(), reducer.totals().end()), want);
      }
    });
  }
}

TEST(OrderedSquareSum, BitsDoNotDependOnRanks) {
  const std::int64_t elements = 9 * kShardBlock + 100;
  const Tensor values = group_gradient(DType::f32, elements, 0);
  double want = 0;
  std::vector<double> seen;
  for (const int ranks : {1, 2, 3, 4}) {
    testing::run_ranks(ranks, [&](Communicator& world) {
      Workers workers(1);
      Stream stream(workers);
      const ShardLayout layout(elements, world.size());
      const ShardRange mine = layout.range(world.rank());
      const double sum = ordered_square_sum(world, layout, values.view().slice(0, mine.begin, mine.elements()), stream);
      if (ranks == 1) want = sum;
      EXPECT_EQ(sum, want);
    });
  }
  double plain = 0;
  for (std::int64_t i = 0; i < elements; ++i) plain += std::pow(static_cast<double>(values.as<float>()[i]), 2);
  EXPECT_NEAR(want, plain, 1e-12 * plain);
}

}  // namespace
}  // namespace shoestring
