// Training is the same under every layout: loss, gradients, optimizer state and weights, to the last bit.
#include <gtest/gtest.h>

#include <array>
#include <mutex>

#include "core/recipe/names.h"
#include "tests/core/training/layout_rank.h"
#include "tests/support/ranks.h"

namespace shoestring {
namespace {

using namespace shoestring::testing;

constexpr int kSteps = 3;

struct Damage {
  int rank = -1;             ///< of the world
  std::int64_t sample = -1;  ///< that it draws another in the place of
};

/// What one rank of a layout holds after kSteps steps, and what each of them came to.
Record train(const ModelConfig& config, PrecisionPolicy format, const Recipe& recipe, Communicator& world,
             const Damage& damage = {}) {
  LayoutRank rank(config, format, recipe, world);
  if (damage.rank == world.rank()) rank.feed.damaged = damage.sample;
  Record record;
  for (int step = 1; step <= kSteps; ++step) {
    const StepOutcome outcome = rank.step(step);
    const std::string prefix = fmt::format("step {} ", step);
    record[prefix + "loss"] = bytes_of(outcome.loss);
    record[prefix + "further loss"] = bytes_of(outcome.batch.further_loss);
    record[prefix + "balance loss"] = bytes_of(outcome.batch.balance_loss);
    record[prefix + "tokens"] = bytes_of(outcome.batch.tokens);
    record[prefix + "norm"] = bytes_of(outcome.gradient_norm);
    if (!outcome.batch.router_counts.empty()) record[prefix + "loads"] = bytes_of(outcome.batch.router_counts);
    rank.note_gradients(prefix + "gradient ", record);
  }
  rank.note_state(record);
  return record;
}

/// What differs first between one process and the ranks of a layout, which must know all there is between them; empty
/// where nothing does.
std::string difference(const Record& alone, const ModelConfig& config, PrecisionPolicy format, const Recipe& recipe,
                       int ranks, const Damage& damage = {}) {
  std::mutex mutex;
  Record seen;
  std::string first;
  run_ranks(ranks, [&](Communicator& world) {
    const Record own = train(config, format, recipe, world, damage);
    const std::lock_guard lock(mutex);
    for (const auto& [name, bytes] : own) {
      const auto expected = alone.find(name);
      const bool same = expected != alone.end() && expected->second == bytes;
      if (!same && (first.empty() || name < first)) first = name;
      seen.emplace(name, bytes);
    }
  });
  return first.empty() && seen.size() != alone.size() ? "something is missing" : first;
}

void expect_parity(Architecture architecture, PrecisionPolicy format, bool tied) {
  const ModelConfig config = eight_layers(architecture, tied);
  const Record alone =
      train(config, format, LayoutRank::recipe_of(config, 1, ScheduleName::one_f_one_b), *self_communicator());
  EXPECT_NE(alone.at("step 1 loss"), alone.at("step 3 loss"));
  for (const int pipeline : {2, 4}) {
    for (const ScheduleName schedule : {ScheduleName::one_f_one_b, ScheduleName::interleaved, ScheduleName::zb_h1,
                                        ScheduleName::zb_v, ScheduleName::dualpipev}) {
      const int data = pipeline == 2 ? 2 : 1;
      EXPECT_EQ(difference(alone, config, format, LayoutRank::recipe_of(config, pipeline, schedule), pipeline * data),
                "")
          << word(schedule) << " on " << pipeline << " x " << data;
    }
  }
  EXPECT_EQ(difference(alone, config, format, LayoutRank::recipe_of(config, 4, ScheduleName::zb_v), 8), "");
}

TEST(Parity, OfExpertsLatentAttentionAndMultiTokenPredictionInFp32) {
  expect_parity(Architecture::deepseek_v3, PrecisionPolicy::fp32, false);
}

TEST(Parity, OfExpertsLatentAttentionAndMultiTokenPredictionInBf16) {
  expect_parity(Architecture::deepseek_v3, PrecisionPolicy::bf16, false);
}

// The head, the first look-ups and those of multi-token prediction share one table, from both ends of the model.
TEST(Parity, OfOneTableForAll) { expect_parity(Architecture::deepseek_v3, PrecisionPolicy::fp32, true); }

TEST(Parity, OfADenseModelInFp32) { expect_parity(Architecture::llama, PrecisionPolicy::fp32, false); }

TEST(Parity, OfADenseModelWithTiedEmbeddingsInBf16) { expect_parity(Architecture::llama, PrecisionPolicy::bf16, true); }

// ---- experts shared out

/// Every schedule between two stages, each held by two ranks that share its experts; and further ways to share.
void expect_expert_parity(PrecisionPolicy format) {
  const ModelConfig config = eight_layers(Architecture::deepseek_v3);
  const Record alone =
      train(config, format, LayoutRank::recipe_of(config, 1, ScheduleName::one_f_one_b), *self_communicator());
  const auto expect_same = [&](int pipeline, int data, ScheduleName schedule) {
    EXPECT_EQ(difference(alone, config, format, LayoutRank::recipe_of(config, pipeline, schedule, 2), pipeline * data),
              "")
        << word(schedule) << " on " << pipeline << " x " << data;
  };
  for (const ScheduleName schedule : {ScheduleName::one_f_one_b, ScheduleName::interleaved, ScheduleName::zb_h1,
                                      ScheduleName::zb_v, ScheduleName::dualpipev}) {
    expect_same(2, 2, schedule);
  }
  expect_same(1, 2, ScheduleName::one_f_one_b);
  expect_same(4, 2, ScheduleName::dualpipev);
}

TEST(Parity, OfSharedExpertsInFp32) { expect_expert_parity(PrecisionPolicy::fp32); }

TEST(Parity, OfSharedExpertsInBf16) { expect_expert_parity(PrecisionPolicy::bf16); }

// Tiles run along the tokens of a source, which are those of its micro-batch: they coincide.
TEST(Parity, OfSharedExpertsInFp8) {
  const ModelConfig config = tiled_config(Architecture::deepseek_v3);
  Recipe recipe = LayoutRank::recipe_of(config, 1, ScheduleName::one_f_one_b);
  recipe.parallel.reduction_groups = 4;
  const Record alone = train(config, PrecisionPolicy::fp8_block, recipe, *self_communicator());
  const auto expect_same = [&](int pipeline, int data, int expert) {
    recipe.parallel.pipeline = pipeline;
    recipe.parallel.expert = expert;
    recipe.parallel.schedule = ScheduleName::zb_h1;
    EXPECT_EQ(difference(alone, config, PrecisionPolicy::fp8_block, recipe, pipeline * data), "")
        << pipeline << " x " << data << ", expert " << expert;
  };
  expect_same(1, 4, 2);  // two replicas of two
  expect_same(1, 4, 4);
  expect_same(2, 2, 2);
}

// ---- the optimizer's state shared out

class ParityOfSharedState : public ::testing::TestWithParam<OptimizerName> {};

TEST_P(ParityOfSharedState, GradientsWeightsStateAndNormAreThoseOfOneProcess) {
  const ModelConfig config = eight_layers(Architecture::deepseek_v3);
  const auto recipe_of = [&](int pipeline, int expert, bool shares) {
    Recipe recipe = LayoutRank::recipe_of(config, pipeline, ScheduleName::zb_h1, expert);
    recipe.optimizer.name = GetParam();
    recipe.parallel.shard_optimizer = shares;
    recipe.parallel.reduction_groups = 4;
    return recipe;
  };
  const Record alone = train(config, PrecisionPolicy::fp32, recipe_of(1, 1, false), *self_communicator());
  constexpr std::array<std::array<int, 3>, 4> kShapes = {{{1, 2, 1}, {1, 4, 2}, {2, 2, 1}, {2, 2, 2}}};
  for (const auto& [pipeline, data, expert] : kShapes) {
    EXPECT_EQ(difference(alone, config, PrecisionPolicy::fp32, recipe_of(pipeline, expert, true), pipeline * data), "")
        << pipeline << " x " << data << ", expert " << expert;
  }
}

INSTANTIATE_TEST_SUITE_P(Optimizers, ParityOfSharedState, ::testing::Values(OptimizerName::adamw, OptimizerName::muon),
                         [](const auto& parameter) {
                           return parameter.param == OptimizerName::adamw ? "adamw" : "muon";
                         });

// One micro-batch that one rank of a pipeline sees otherwise than the others.
TEST(Parity, IsLostWithOneWrongMicroBatchOnOneRank) {
  const ModelConfig config = eight_layers(Architecture::llama);
  const Record alone = train(config, PrecisionPolicy::fp32, LayoutRank::recipe_of(config, 1, ScheduleName::one_f_one_b),
                             *self_communicator());
  for (const int rank : {0, 1}) {
    EXPECT_NE(difference(alone, config, PrecisionPolicy::fp32, LayoutRank::recipe_of(config, 2, ScheduleName::zb_h1), 2,
                         {.rank = rank, .sample = 13}),
              "");
  }
}

}  // namespace
}  // namespace shoestring
