#include "core/training/batch_plan.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

namespace shoestring {
namespace {

PhaseSpec phase() {
  PhaseSpec spec;
  spec.sequence = 128;
  spec.micro_batch = 2;
  spec.global_batch = 24;
  return spec;
}

// The micro-batches of some steps, as all ranks together compute them.
std::vector<std::int64_t> firsts(const PhaseSpec& spec, int groups, int ranks, std::int64_t samples) {
  std::vector<std::int64_t> all;
  for (int rank = 0; rank < ranks; ++rank) {
    RankOrder order(BatchPlan(spec, groups, ranks), 0, rank);
    while (true) {
      const SampleRange range = order.next();
      if (range.first >= samples) break;
      all.push_back(range.first);
    }
  }
  std::sort(all.begin(), all.end());
  return all;
}

TEST(BatchPlan, EverySampleOnceForAnyRanks) {
  const std::vector<std::int64_t> one = firsts(phase(), 4, 1, 240);
  EXPECT_EQ(one.size(), 120u);
  for (std::size_t i = 0; i < one.size(); ++i) EXPECT_EQ(one[i], static_cast<std::int64_t>(2 * i));
  EXPECT_EQ(firsts(phase(), 4, 2, 240), one);
  EXPECT_EQ(firsts(phase(), 4, 4, 240), one);
}

TEST(BatchPlan, RampGrowsInWholeMicroBatchesPerGroup) {
  PhaseSpec spec = phase();
  spec.batch_ramp_from = 8;
  spec.batch_ramp_tokens = 128 * 200;
  const BatchPlan plan(spec, 2, 1);
  EXPECT_EQ(plan.global_batch(0), 8);
  EXPECT_EQ(plan.global_batch(200), 24);
  EXPECT_EQ(plan.global_batch(100000), 24);
  std::int64_t before = 0;
  for (std::int64_t samples = 0; samples < 300; samples += 5) {
    EXPECT_GE(plan.global_batch(samples), before);
    EXPECT_EQ(plan.global_batch(samples) % 4, 0);
    before = plan.global_batch(samples);
  }
  EXPECT_EQ(firsts(spec, 2, 2, 100), firsts(spec, 2, 1, 100));
}

TEST(BatchPlan, RampEndsAtABatchThatGroupsDoNotDivide) {
  PhaseSpec spec = phase();
  spec.micro_batch = 1;
  spec.global_batch = 10;
  spec.batch_ramp_from = 4;
  spec.batch_ramp_tokens = 128 * 20;
  const BatchPlan plan(spec, 4, 2);
  EXPECT_EQ(plan.global_batch(0), 4);
  EXPECT_EQ(plan.global_batch(19), 8);
  EXPECT_EQ(plan.global_batch(20), 10);
  EXPECT_EQ(plan.global_batch(1000), 10);
  EXPECT_EQ(firsts(spec, 4, 2, 100), firsts(spec, 4, 1, 100));
}

TEST(BatchPlan, ResumesAnywhere) {
  RankOrder whole(BatchPlan(phase(), 4, 2), 0, 1);
  for (int i = 0; i < 6 * 2; ++i) whole.next();  // two steps of this rank
  RankOrder resumed(BatchPlan(phase(), 4, 2), 48, 1);
  for (int i = 0; i < 20; ++i) EXPECT_EQ(whole.next().first, resumed.next().first);
}

}  // namespace
}  // namespace shoestring
