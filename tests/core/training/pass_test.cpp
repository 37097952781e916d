#include "core/training/pass.h"

#include <gtest/gtest.h>

#include <numeric>

#include "kernels/base/check.h"
#include "tests/core/model/small_models.h"
#include "tests/core/training/layout_rank.h"
#include "tests/core/training/made_feed.h"
#include "tests/support/compare.h"
#include "tests/support/fill.h"
#include "tests/support/ranks.h"

namespace shoestring {
namespace {

using namespace shoestring::testing;

constexpr std::int64_t kSequence = 12;
constexpr std::int64_t kMicroBatch = 2;
constexpr std::int64_t kGlobalBatch = 10;  // five micro-batches: reduction groups of unequal length

BatchPlan plan_of(int groups, int ranks, std::int64_t micro_batch) {
  PhaseSpec phase;
  phase.sequence = kSequence;
  phase.micro_batch = micro_batch;
  phase.global_batch = kGlobalBatch;
  return {phase, groups, ranks};
}

/// A model on one rank, a pass over it, and what it reads.
struct PassRun {
  PassRun(Architecture architecture, const PrecisionSpec& precision, Communicator& world, int groups, int stages = 1,
          std::int64_t micro_batch = kMicroBatch)
      : run(tiled_config(architecture), precision, stages, micro_batch, kSequence),
        plan(plan_of(groups, world.size(), micro_batch)),
        feed(run.model.config().vocabulary, kSequence, clock),
        mesh(world, {.data = world.size()}),
        pass(run.model, mesh, groups, run.stream, meter) {}
  PassResult operator()(std::int64_t samples = 0) { return pass.run(plan, samples, feed); }
  Tensor gradients() { return copy(run.model.store().gradients); }

  HeldClock clock;
  Meter meter{clock};
  SmallRun run;
  BatchPlan plan;
  MadeFeed feed;
  Mesh mesh;
  Pass pass;
};

void expect_same(const PassResult& a, const PassResult& b) {
  EXPECT_EQ(a.loss, b.loss);
  EXPECT_EQ(a.tokens, b.tokens);
  EXPECT_EQ(a.text_tokens, b.text_tokens);
  EXPECT_EQ(a.further_loss, b.further_loss);
  EXPECT_EQ(a.further_tokens, b.further_tokens);
  EXPECT_EQ(a.balance_loss, b.balance_loss);
  EXPECT_EQ(a.precision.activations.elements, b.precision.activations.elements);
  EXPECT_EQ(a.precision.gradients.underflowed, b.precision.gradients.underflowed);
  EXPECT_TRUE(same_bits(a.router_counts, b.router_counts));
}

TEST(Pass, IsTheSameOnAnyNumberOfRanks) {
  constexpr int kGroups = 4;
  for (const PrecisionPolicy format : {PrecisionPolicy::fp32, PrecisionPolicy::fp8_block}) {
    const std::unique_ptr<Communicator> self = self_communicator();
    PassRun alone(Architecture::deepseek_v3, policy(format), *self, kGroups);
    const PassResult expected = alone();
    const Tensor gradients = alone.gradients();
    EXPECT_GT(expected.loss, 0);
    EXPECT_GT(expected.further_tokens, 0);
    EXPECT_GT(expected.balance_loss, 0);
    for (const int ranks : {2, 4}) {
      run_ranks(ranks, [&](Communicator& world) {
        PassRun part(Architecture::deepseek_v3, policy(format), world, kGroups);
        expect_same(part(), expected);
        EXPECT_TRUE(same_bits(part.gradients(), gradients)) << ranks << " ranks";
      });
    }
  }
}

// Every token of the batch went through every mixture once, whichever rank it was on.
TEST(Pass, LoadsAreThoseOfTheWholeBatch) {
  run_ranks(2, [&](Communicator& world) {
    PassRun part(Architecture::deepseek_v3, policy(PrecisionPolicy::fp32), world, 2);
    const PassResult result = part();
    const ModelConfig& config = part.run.model.config();
    EXPECT_EQ(config.mixtures(), config.layers - config.dense_layers + config.mtp_layers);
    ASSERT_EQ(result.router_counts.shape(), (Shape{config.mixtures(), config.experts}));
    for (std::int64_t mixture = 0; mixture < config.mixtures(); ++mixture) {
      const std::int64_t* loads = result.router_counts.as<std::int64_t>() + mixture * config.experts;
      EXPECT_EQ(std::accumulate(loads, loads + config.experts, std::int64_t{0}),
                kGlobalBatch * kSequence * config.experts_per_token);
    }
  });
}

TEST(Pass, DrawsEachMicroBatchOnceAndCountsTheWait) {
  const std::unique_ptr<Communicator> self = self_communicator();
  PassRun run(Architecture::llama, policy(PrecisionPolicy::fp32), *self, 1);
  run(30);
  EXPECT_EQ(run.feed.asked, (std::vector<std::int64_t>{30, 32, 34, 36, 38}));
  EXPECT_EQ(run.meter.read()[Category::data_wait], 5 * MadeFeed::kFetchSeconds);
  EXPECT_EQ(run.meter.category(), Category::startup);  // what counted before counts again
}

// Nothing is left over from an earlier pass.
TEST(Pass, EachIsAValueOfItsOwn) {
  const std::unique_ptr<Communicator> self = self_communicator();
  PassRun run(Architecture::deepseek_v3, policy(PrecisionPolicy::fp8_block), *self, 2);
  const PassResult first = run();
  const Tensor gradients = run.gradients();
  run(kGlobalBatch);
  EXPECT_FALSE(same_bits(run.gradients(), gradients));
  expect_same(run(), first);
  EXPECT_TRUE(same_bits(run.gradients(), gradients));
}

// One micro-batch of twenty tokens in the place of another is seen.
TEST(Pass, AWrongMicroBatchShows) {
  const std::unique_ptr<Communicator> self = self_communicator();
  PassRun right(Architecture::llama, policy(PrecisionPolicy::bf16), *self, 1);
  PassRun wrong(Architecture::llama, policy(PrecisionPolicy::bf16), *self, 1);
  wrong.feed.damaged = 6;
  EXPECT_NE(wrong().loss, right().loss);
  EXPECT_FALSE(same_bits(wrong.gradients(), right.gradients()));
}

TEST(Pass, AFeedThatFailsEndsIt) {
  const std::unique_ptr<Communicator> self = self_communicator();
  PassRun run(Architecture::llama, policy(PrecisionPolicy::fp32), *self, 1);
  run.feed.fails_at = 4;
  EXPECT_THROW(run(), Error);
}

// Samples of which very different shares are learned: sample s every (1 + s % 5)th token, samples 3 and 8 nothing at
// all.
void mask_unevenly(std::int64_t first, SmallBatch& batch) {
  for (std::size_t t = 0; t < batch.targets.size(); ++t) {
    const std::int64_t sample = first + static_cast<std::int64_t>(t) / kSequence;
    const bool learned = sample % 5 != 3 && static_cast<std::int64_t>(t) % (1 + sample % 5) == 0;
    if (!learned) batch.targets[t] = -1;
  }
}

// The mean is over the learned tokens of the whole batch, however it is cut: ten micro-batches on one rank, or one on
// each of ten, or two on each of five, give the same bits. (A mean of means would not: their masks are uneven.)
TEST(Pass, UnevenMasksAreTheSameOnAnyNumberOfRanks) {
  constexpr int kGroups = 10;
  const auto masked = [](Communicator& world, Tensor& gradients) {
    PassRun part(Architecture::llama, policy(PrecisionPolicy::fp32), world, kGroups, 1, 1);
    part.feed.masks = mask_unevenly;
    PassResult result = part();
    gradients = part.gradients();
    return result;
  };
  Tensor gradients;
  const PassResult expected = masked(*self_communicator(), gradients);
  EXPECT_GT(expected.tokens, 10);
  EXPECT_LT(expected.tokens, 60) << "of 120";
  EXPECT_EQ(expected.weight, expected.tokens);
  EXPECT_EQ(expected.text_tokens, kGlobalBatch * kSequence) << "what is only read is read";
  for (const int ranks : {2, 5, 10}) {
    run_ranks(ranks, [&](Communicator& world) {
      Tensor own;
      const PassResult result = masked(world, own);
      EXPECT_EQ(result.loss, expected.loss);
      EXPECT_EQ(result.tokens, expected.tokens);
      EXPECT_EQ(result.weight, expected.weight);
      EXPECT_EQ(result.text_tokens, expected.text_tokens);
      EXPECT_TRUE(same_bits(own, gradients)) << ranks << " ranks";
    });
  }
}

class PassSchedules : public ::testing::TestWithParam<ScheduleName> {};

// One rank of a pipeline is asked to leave in the middle of a group of eight micro-batches: it computes nothing more,
// all ranks learn that the pass is no good, and no message is left under way on any axis.
TEST_P(PassSchedules, WhoIsAskedToLeaveOnlyPassesOn) {
  const ModelConfig config = eight_layers(Architecture::deepseek_v3);
  for (const int before : {0, 7}) {  // actions
    run_ranks(2, [&](Communicator& world) {
      LayoutRank rank(config, PrecisionPolicy::fp32, LayoutRank::recipe_of(config, 2, GetParam()), world);
      Pass pass(rank.model, rank.mesh, LayoutRank::kGroups, rank.stream, rank.meter, rank.layout.schedule);
      int actions = 0;
      const bool asked = world.rank() == 1;
      const PassStops stops = {.all = {}, .own = [&] { return asked && ++actions > before; }};
      EXPECT_TRUE(pass.run(rank.plan, 0, rank.feed, stops).abandoned);
      const std::size_t drawn = rank.feed.asked.size();
      EXPECT_TRUE(!asked || drawn <= static_cast<std::size_t>(before)) << drawn;
      for (Communicator* axis : {&world, &rank.mesh.pipeline()}) {
        double ranks = 1;
        axis->all_reduce(view_of(&ranks, DType::f64, {1}));
        EXPECT_EQ(ranks, 2);
      }
    });
  }
}

TEST_P(PassSchedules, NobodyAskedIsNobodyHeld) {
  const ModelConfig config = eight_layers(Architecture::llama);
  run_ranks(2, [&](Communicator& world) {
    LayoutRank rank(config, PrecisionPolicy::fp32, LayoutRank::recipe_of(config, 2, GetParam()), world);
    Pass pass(rank.model, rank.mesh, LayoutRank::kGroups, rank.stream, rank.meter, rank.layout.schedule);
    const PassStops stops = {.all = {}, .own = [] { return false; }};
    EXPECT_FALSE(pass.run(rank.plan, 0, rank.feed, stops).abandoned);
    EXPECT_EQ(rank.feed.asked.size(), 16u);
  });
}

INSTANTIATE_TEST_SUITE_P(All, PassSchedules,
                         ::testing::Values(ScheduleName::one_f_one_b, ScheduleName::interleaved, ScheduleName::zb_h1,
                                           ScheduleName::zb_v, ScheduleName::dualpipev));

}  // namespace
}  // namespace shoestring
