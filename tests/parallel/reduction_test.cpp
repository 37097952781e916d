#include "parallel/reduction.h"

#include <gtest/gtest.h>

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
      Tensor full(dtype, {elements});
      reducer.place(full);
      for (const ShardRange& range : reducer.layout().ranges()) {
        const auto part = [&](const Tensor& of) { return of.view().slice(0, range.begin, range.elements()); };
        EXPECT_EQ(testing::same_bits(part(full), part(want)), range.owner == world.rank());
      }
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
  expect_canonical(DType::f32, (std::int64_t{1} << 16) * 10 + 3 * kShardBlock + 5, 2, 4);  // more pieces than slots
}

// Whatever is complete when: in the order of the buckets, against it, differently on each rank, or only at the end.
TEST(CanonicalReducer, BitsDoNotDependOnWhenMessagesStart) {
  constexpr int kRanks = 3;
  constexpr int kGroups = 6;
  const std::int64_t elements = 40 * kShardBlock + 17;
  const Tensor want = left_fold<float>(DType::f32, elements, kGroups);
  std::vector<Bucket> buckets;
  for (std::int64_t begin = 35 * kShardBlock; begin >= 0; begin -= 7 * kShardBlock) {
    buckets.push_back({{begin + 5, begin + 3 * kShardBlock}, {begin + 4 * kShardBlock, begin + 5 * kShardBlock}});
  }
  buckets.insert(buckets.begin() + 2, Bucket{});
  const auto count = static_cast<int>(buckets.size());
  for (const bool at_the_end : {false, true}) {
    testing::run_ranks(kRanks, [&](Communicator& world) {
      Workers workers(1);
      Stream stream(workers);
      CanonicalReducer reducer(world, ShardLayout(elements, kRanks), kGroups / kRanks, DType::f32, stream, 1, buckets);
      Tensor gradient;
      for (int round = 0; round < reducer.rounds(); ++round) {
        gradient = group_gradient(DType::f32, elements, group_of(round, world.rank(), kRanks));
        reducer.begin(gradient);
        for (int i = 0; i < count && !at_the_end; ++i) {
          const int turned = world.rank() == 1 ? count - 1 - i : world.rank() == 2 ? (i + 3) % count : i;
          reducer.complete(turned);
        }
        reducer.fold();
      }
      reducer.gather(gradient);
      EXPECT_TRUE(testing::same_bits(gradient, want));
    });
  }
}

TEST(CanonicalReducer, BucketsThatOverlapAreRefused) {
  const auto self = self_communicator();
  Workers workers(1);
  Stream stream(workers);
  const auto with = [&](const std::vector<Bucket>& buckets) {
    return CanonicalReducer(*self, ShardLayout(10, 1), 1, DType::f32, stream, 1, buckets);
  };
  EXPECT_THROW(with({{{0, 5}}, {{4, 6}}}), Error);
  EXPECT_THROW(with({{{8, 11}}}), Error);
  CanonicalReducer reducer = with({{{0, 5}}});
  Tensor gradient(DType::f32, {10});
  reducer.begin(gradient);
  EXPECT_THROW(reducer.complete(1), Error);
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
    const std::int64_t own = reducer.layout().elements_of(world.rank());
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
  EXPECT_THROW(reducer.place(gradient), Error);
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

}  // namespace
}  // namespace shoestring
