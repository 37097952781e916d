#include "core/training/engine.h"

#include <gtest/gtest.h>

#include <limits>

#include "core/optimizer/clip.h"
#include "kernels/base/check.h"
#include "tests/core/model/small_models.h"
#include "tests/core/training/made_feed.h"
#include "tests/support/compare.h"
#include "tests/support/fill.h"
#include "tests/support/ranks.h"

namespace shoestring {
namespace {

using namespace shoestring::testing;

constexpr std::int64_t kSequence = 12;
constexpr std::int64_t kMicroBatch = 2;
constexpr std::int64_t kGlobalBatch = 8;
constexpr double kRate = 1e-2;

PhaseSpec phase() {
  PhaseSpec spec;
  spec.sequence = kSequence;
  spec.micro_batch = kMicroBatch;
  spec.global_batch = kGlobalBatch;
  return spec;
}

/// Moves nothing and fails.
class BrokenOptimizer : public Optimizer {
 public:
  void step(const OptimizerStep&, Stream&) override { fail(ExitCode::bug, "broken"); }
  std::vector<OptimizerState> state() override { return {}; }
  std::int64_t state_bytes() const override { return 0; }
};

/// An engine over a small model, and what it reads.
struct EngineRun {
  explicit EngineRun(Communicator& world, int groups = 1, std::unique_ptr<Optimizer> broken = nullptr,
                     Architecture architecture = Architecture::llama)
      : run(tiled_config(architecture), policy(PrecisionPolicy::fp32), 1, kMicroBatch, kSequence),
        optimizer(broken != nullptr ? std::move(broken)
                                    : make_optimizer(recipe.optimizer, MomentFormat::f32, run.model.parameters(), 1)),
        plan(phase(), groups, world.size()),
        feed(run.model.config().vocabulary, kSequence, clock),
        mesh(world, {.data = world.size()}),
        engine(recipe, {run.model, *optimizer, run.stream}, mesh, groups, meter) {
    recipe.model.bias_speed = 0.25;
  }
  StepOutcome operator()() {
    StepOutcome outcome =
        engine.step({.plan = plan, .feed = feed, .samples = samples, .update = updates + 1, .learning_rate = kRate});
    updates += outcome.judgement.verdict == StepVerdict::apply;
    samples += outcome.sequences;
    return outcome;
  }
  /// What step() begins with, and no more.
  void pass_alone() { Pass(run.model, mesh, 2, run.stream, meter).run(plan, samples, feed); }
  Tensor weights() { return copy(run.model.store().values); }

  Recipe recipe;
  HeldClock clock;
  Meter meter{clock};
  SmallRun run;
  std::unique_ptr<Optimizer> optimizer;
  BatchPlan plan;
  MadeFeed feed;
  Mesh mesh;
  Engine engine;
  std::int64_t samples = 0;
  std::int64_t updates = 0;
};

TEST(Engine, AStepMovesTheWeightsByTheClippedMeanGradient) {
  const std::unique_ptr<Communicator> self = self_communicator();
  EngineRun run(*self);
  EngineRun other(*self);
  const Tensor before = run.weights();
  const StepOutcome outcome = run();
  EXPECT_EQ(outcome.sequences, kGlobalBatch);
  EXPECT_EQ(outcome.loss, outcome.batch.loss * (1 / outcome.batch.tokens));
  EXPECT_EQ(outcome.learning_rate, kRate);
  EXPECT_EQ(outcome.judgement.verdict, StepVerdict::apply);
  EXPECT_FALSE(same_bits(run.weights(), before));

  // The same from its parts.
  Pass pass(other.run.model, other.mesh, 1, other.run.stream, other.meter);
  const PassResult batch = pass.run(other.plan, 0, other.feed);
  const double scale = 1 / batch.tokens;
  const double norm = GradientNorm(other.run.model, {}, {})(*self, scale, other.run.stream);
  EXPECT_EQ(outcome.gradient_norm, norm);
  other.optimizer->step(
      {.learning_rate = kRate, .gradient_scale = scale * clip_factor(norm, run.recipe.optimizer.clip), .number = 1},
      other.run.stream);
  EXPECT_TRUE(same_bits(run.weights(), other.weights()));
}

TEST(Engine, IsTheSameOnAnyNumberOfRanks) {
  constexpr int kGroups = 4;
  const auto steps = [](EngineRun& run) {
    std::vector<double> losses;
    for (int i = 0; i < 3; ++i) losses.push_back(run().loss);
    return losses;
  };
  const std::unique_ptr<Communicator> self = self_communicator();
  EngineRun alone(*self, kGroups, nullptr, Architecture::deepseek_v3);
  const std::vector<double> losses = steps(alone);
  const Tensor weights = alone.weights();
  EXPECT_NE(losses[0], losses[2]);
  for (const int ranks : {2, 4}) {
    run_ranks(ranks, [&](Communicator& world) {
      EngineRun part(world, kGroups, nullptr, Architecture::deepseek_v3);
      EXPECT_EQ(steps(part), losses);
      EXPECT_TRUE(same_bits(part.weights(), weights)) << ranks << " ranks";
    });
  }
}

TEST(Engine, TakesTheTimeOfItsClock) {
  const std::unique_ptr<Communicator> self = self_communicator();
  EngineRun run(*self);
  run.clock.seconds = 100;
  const std::int64_t fetches = kGlobalBatch / kMicroBatch;
  EXPECT_EQ(run().seconds, static_cast<double>(fetches) * MadeFeed::kFetchSeconds);
}

// The last weight is no number: no step is finite, and the weights are not fit to be saved.
TEST(Engine, WhatIsNotFiniteIsSkippedAndNotSaved) {
  const std::unique_ptr<Communicator> self = self_communicator();
  EngineRun run(*self);
  run.engine.check_finite(0);
  const TensorView values = run.run.model.store().values;
  values.as<float>()[values.elements() - 1] = std::numeric_limits<float>::quiet_NaN();
  run.run.model.prepare();
  const Tensor before = run.weights();
  const StepOutcome outcome = run();
  EXPECT_EQ(outcome.judgement.verdict, StepVerdict::skip);
  EXPECT_EQ(outcome.guard.skipped, 1);
  EXPECT_TRUE(same_bits(run.weights(), before));
  EXPECT_TRUE(run.engine.whole());
  EXPECT_THROW(run.engine.check_finite(1), Error);
  EXPECT_FALSE(run.engine.whole());
}

TEST(Engine, IsWholeUnlessAnUpdateWasCutShort) {
  const std::unique_ptr<Communicator> self = self_communicator();
  EngineRun starved(*self);
  starved.feed.fails_at = kMicroBatch;
  EXPECT_THROW(starved(), Error);
  EXPECT_TRUE(starved.engine.whole());
  EngineRun broken(*self, 1, std::make_unique<BrokenOptimizer>());
  EXPECT_THROW(broken(), Error);
  EXPECT_FALSE(broken.engine.whole());
}

// The other rank brings no norm to the exchange of numbers: nothing has moved yet.
TEST(Engine, IsWholeWhereTheNumbersCannotBeSummed) {
  run_ranks(2, [](Communicator& world) {
    EngineRun run(world, 2);
    if (world.rank() == 1) {
      EXPECT_THROW(run.pass_alone(), Error);
      return;
    }
    const Tensor before = run.weights();
    EXPECT_THROW(run(), Error);
    EXPECT_TRUE(run.engine.whole());
    EXPECT_TRUE(same_bits(run.weights(), before));
  });
}

TEST(Engine, AChangeThatIsNotKeptLeavesItHalfWay) {
  const std::unique_ptr<Communicator> self = self_communicator();
  EngineRun run(*self);
  {
    Engine::Change change(run.engine);
    EXPECT_FALSE(run.engine.whole());
    change.kept();
  }
  EXPECT_TRUE(run.engine.whole());
  { const Engine::Change change(run.engine); }
  EXPECT_FALSE(run.engine.whole());
}

TEST(Engine, ABatchWithNothingToTrainOnIsRefused) {
  const std::unique_ptr<Communicator> self = self_communicator();
  EngineRun run(*self);
  run.feed.masks = [](std::int64_t, SmallBatch& batch) { std::fill(batch.targets.begin(), batch.targets.end(), -1); };
  try {
    run();
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::bad_data);
    EXPECT_NE(std::string(error.what()).find("nothing to train on"), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace shoestring
