#include "core/optimizer/warm_up.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>

#include "core/optimizer/learning_rate.h"

namespace shoestring {
namespace {

Recipe recipe_of(LearningRateKind kind, std::int64_t warmup_steps, std::size_t phases = 1) {
  Recipe recipe;
  recipe.schedule.kind = kind;
  recipe.schedule.learning_rate = 2e-3;
  recipe.schedule.warmup_steps = warmup_steps;
  for (std::size_t i = 0; i < phases; ++i)
    recipe.phases.push_back({.name = std::string(1, static_cast<char>('a' + i))});
  return recipe;
}

std::string told(const Recipe& recipe, double steps) {
  return unfinished_warmup(recipe, spread_over_phases(recipe, steps));
}

TEST(WarmUp, OneThatNeverEndsIsTold) {
  const Recipe recipe = recipe_of(LearningRateKind::constant, 2000);
  EXPECT_EQ(told(recipe, 2001), "");
  EXPECT_EQ(told(recipe, 200),
            "schedule.warmup_steps = 2000 leaves nothing of the 200 steps of the run: its rate would reach 0.0002 of "
            "0.002 at most; set it to some 10");
  EXPECT_EQ(told(recipe_of(LearningRateKind::constant, 0), 0), "");
}

// Each phase with weights of its own begins anew, and so the run before it ends there.
TEST(WarmUp, BeginsAnewWithNewWeights) {
  Recipe recipe = recipe_of(LearningRateKind::constant, 5, 3);
  EXPECT_EQ(told(recipe, 9), "") << "three steps a phase, one warm-up";
  recipe.phases[2].from = "elsewhere";
  EXPECT_EQ(told(recipe, 9),
            "schedule.warmup_steps = 5 leaves nothing of the 3 steps of phase.c, with a warm-up of its own: its rate "
            "would reach 0.0012 of 0.002 at most; set it to some 0");
  recipe.phases[2].share = 2;
  EXPECT_EQ(told(recipe, 12), "") << "six steps and six";
  recipe.phases[2].share = 10;
  EXPECT_NE(told(recipe, 24).find("4 steps of phase.a to phase.b, with a warm-up of its own"), std::string::npos)
      << told(recipe, 24);
}

TEST(WarmUp, BeginsAnewWithOtherWeightsToTrain) {
  Recipe recipe = recipe_of(LearningRateKind::constant, 5, 2);
  recipe.lora.rank = 4;
  EXPECT_EQ(told(recipe, 8), "");
  recipe.phases[1].lora = false;
  recipe.phases[1].learning_rate = 1;
  recipe.phases[0].share = 2;
  EXPECT_NE(told(recipe, 9).find("the 3 steps of phase.b, with a warm-up of its own: its rate would reach 0.6 of 1 at"),
            std::string::npos)
      << told(recipe, 9);
}

// The rate that is told is the highest of all steps.
TEST(WarmUp, ADecayThatComesFirstIsTold) {
  for (const double decay : {0.25, 0.5, 0.99}) {
    Recipe recipe = recipe_of(LearningRateKind::warmup_stable_decay, 15);
    recipe.schedule.decay_fraction = decay;
    double highest = 0;
    for (int step = 1; step <= 20; ++step) {
      highest = std::max(highest, learning_rate(recipe.schedule, step, (step - 1) / 20.0));
    }
    const std::string text = told(recipe, 20);
    EXPECT_EQ(text.empty(), highest == recipe.schedule.learning_rate) << text;
    if (decay == 0.5) {
      EXPECT_EQ(text,
                "schedule.warmup_steps = 15 does not end before the decay begins, after 10 of the 20 steps of the run: "
                "its rate would reach 0.00147 of 0.002 at most; set it to some 1");
      EXPECT_NEAR(highest, 0.00147, 5e-6);
    }
  }
  EXPECT_EQ(told(recipe_of(LearningRateKind::cosine, 15), 20), "") << "falls from the beginning on";
  EXPECT_NE(told(recipe_of(LearningRateKind::deepseek, 15), 20), "") << "ten of 14.8 are 13 steps";
  EXPECT_EQ(told(recipe_of(LearningRateKind::deepseek, 14), 20), "");
}

// Steps of phases need not be as even as progress.
TEST(WarmUp, TheDecayBeginsAfterTheStepsOfItsShare) {
  Recipe recipe = recipe_of(LearningRateKind::warmup_stable_decay, 16, 2);
  recipe.schedule.decay_fraction = 0.25;
  const auto steps = [](std::size_t phase, double share) { return share * (phase == 0 ? 10 : 10000); };
  EXPECT_EQ(unfinished_warmup(recipe, steps), "") << "the decay begins after 5010 steps";
  recipe.schedule.decay_fraction = 0.5;
  EXPECT_NE(unfinished_warmup(recipe, steps).find("after 10 of the 10010 steps"), std::string::npos)
      << unfinished_warmup(recipe, steps);
}

}  // namespace
}  // namespace shoestring
