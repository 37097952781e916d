// What `shoestring verify` says of layouts that are sound, and that it sees what goes wrong most often.
#include "core/training/verify.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "tests/core/model/small_models.h"

namespace shoestring {
namespace {

Recipe recipe_of(Architecture architecture) {
  Recipe recipe;
  recipe.model = testing::small_spec(architecture);
  recipe.model.bias_speed = 0.25;
  recipe.precision.policy = PrecisionPolicy::fp32;
  recipe.schedule.learning_rate = 1e-2;
  return recipe;
}

const VerifiedLayout kShared{{.data = 2, .expert = 2}, ScheduleName::one_f_one_b, {}};
const VerifiedLayout kFolded{{.data = 2, .pipeline = 2, .expert = 2}, ScheduleName::zb_v, {}};

/// What differs after one step on two ranks that share experts.
std::string difference(const Tampering& tampering) {
  return verify_layouts(recipe_of(Architecture::deepseek_v3), 1, {kShared}, *self_communicator(), {}, tampering)
      .front()
      .difference;
}

TEST(Verify, RunsEveryScheduleAndEveryWayToShareExperts) {
  const auto count = [](Architecture architecture, int ranks, const auto& wanted) {
    const std::vector<VerifiedLayout> all = layouts_to_verify(recipe_of(architecture), ranks);
    return std::count_if(all.begin(), all.end(), wanted);
  };
  const auto any = [](const VerifiedLayout&) { return true; };
  const auto shares = [](const VerifiedLayout& layout) { return layout.shape.expert > 1; };
  EXPECT_EQ(count(Architecture::llama, 8, any), 2 + 5 * 3 + 5 * 2);
  EXPECT_EQ(count(Architecture::llama, 8, shares), 0);
  EXPECT_EQ(count(Architecture::deepseek_v3, 8, shares), 3 + 5 * 3 + 5 * 1);
  EXPECT_EQ(count(Architecture::deepseek_v3, 2, any), 2 + 5);
}

TEST(Verify, SoundLayoutsAreEqual) {
  int told = 0;
  for (const VerifiedLayout& layout : verify_layouts(recipe_of(Architecture::deepseek_v3), 2, {kShared, kFolded},
                                                     *self_communicator(), [&](const VerifiedLayout&) { ++told; })) {
    EXPECT_EQ(layout.difference, "");
  }
  EXPECT_EQ(told, 2);
}

TEST(Verify, AGradientOfExpertsScaledByTheirRanksIsSeen) {
  const auto scale = [](const Layout& layout, const PassResult&, Transformer& model) {
    for (Parameter* parameter : model.parameters()) {
      if (!parameter->of_experts()) continue;
      for (std::int64_t i = 0; i < parameter->elements(); ++i) {
        parameter->grad.as<float>()[i] /= static_cast<float>(layout.shape.expert);
      }
    }
  };
  EXPECT_NE(difference({.after_step = scale}).find("step 01 gradient model.layers.1.mlp.experts."), std::string::npos);
}

TEST(Verify, ADroppedMicroBatchIsSeen) {
  EXPECT_NE(difference({.wrong_sample = 9}).find("step 01"), std::string::npos);
}

// Moved twice by the loads of a step, as by those of each half.
TEST(Verify, ABiasMovedMoreThanOnceAStepIsSeen) {
  const auto again = [](const Layout&, const PassResult& batch, Transformer& model) {
    model.update_router_biases(batch.router_counts, 0.25);
  };
  EXPECT_NE(difference({.after_step = again}).find("e_score_correction_bias"), std::string::npos);
}

}  // namespace
}  // namespace shoestring
