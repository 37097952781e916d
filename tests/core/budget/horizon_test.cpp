#include "core/budget/horizon.h"

#include <gtest/gtest.h>

namespace shoestring {
namespace {

TEST(Horizon, StepsInAllGoOnAsThePhaseDoes) {
  EXPECT_EQ(steps_in_all({.step = 10, .progress = 0.1, .end_step = 40, .end_progress = 0.25}), 190);
  EXPECT_EQ(steps_in_all({.step = 0, .progress = 0, .end_step = 40, .end_progress = 1}), 40);
}

TEST(Horizon, ProgressIsContinuousAndRisesOverDecisions) {
  std::vector<HorizonDecision> decisions = {{0, 0, 100, 1, 0}};
  EXPECT_EQ(progress_at({}, 5), 0);
  EXPECT_DOUBLE_EQ(progress_at(decisions, 50), 0.5);
  decisions.push_back({50, 0.5, 250, 1, 0});
  EXPECT_DOUBLE_EQ(progress_at(decisions, 50), 0.5);
  EXPECT_DOUBLE_EQ(progress_at(decisions, 49), 0.49);
  EXPECT_DOUBLE_EQ(progress_at(decisions, 150), 0.75);
  EXPECT_EQ(progress_at(decisions, 250), 1);
  EXPECT_EQ(progress_at(decisions, 1000), 1);
}

TEST(Horizon, PlansFromMeasuredSpeed) {
  const std::vector<double> ends = {1};
  EXPECT_FALSE(plan_horizon({0, 0, 0, 100, 0}, ends, nullptr)) << "nothing measured";
  const auto first = plan_horizon({10, 0, 0, 100, 0.5}, ends, nullptr);
  ASSERT_TRUE(first);
  EXPECT_EQ(first->end_step, 210);
  EXPECT_FALSE(plan_horizon({11, 0.005, 0, 99.5, 0.5}, ends, &*first)) << "still lands";
  const auto slower = plan_horizon({11, 0.005, 0, 99, 1.0}, ends, &*first);
  ASSERT_TRUE(slower);
  EXPECT_EQ(slower->end_step, 110);
  EXPECT_EQ(slower->progress, 0.005);
}

TEST(Horizon, PhasesShareTheRest) {
  const std::vector<double> ends = {0.75, 1};
  const auto first = plan_horizon({0, 0, 0, 100, 1}, ends, nullptr);
  EXPECT_EQ(first->end_step, 75);
  EXPECT_EQ(first->end_progress, 0.75);
  const auto second = plan_horizon({75, 0.75, 1, 25, 5}, ends, &*first);
  ASSERT_TRUE(second) << "another phase always makes its own plan";
  EXPECT_EQ(second->end_step, 80);
  EXPECT_EQ(second->phase, 1);
}

TEST(Horizon, APlanUsedUpIsExtendedWhileTimeIsLeft) {
  const std::vector<double> ends = {1};
  const HorizonDecision used{0, 0, 10, 1, 0};
  EXPECT_TRUE(plan_horizon({10, 1, 0, 3, 1}, ends, &used));
  EXPECT_FALSE(plan_horizon({10, 1, 0, 0.5, 1}, ends, &used));
  EXPECT_FALSE(plan_horizon({10, 1, 0, -4, 1}, ends, &used));
}

TEST(Horizon, PhaseEndsFollowTheHorizon) {
  Recipe recipe;
  recipe.phases = {{.name = "a", .tokens = 900, .steps = 1, .share = 1},
                   {.name = "b", .tokens = 100, .steps = 3, .share = 1}};
  recipe.schedule.horizon = Horizon::budget;
  EXPECT_EQ(phase_ends(recipe), (std::vector<double>{0.5, 1}));
  recipe.schedule.horizon = Horizon::tokens;
  EXPECT_EQ(phase_ends(recipe), (std::vector<double>{0.9, 1}));
  recipe.schedule.horizon = Horizon::steps;
  EXPECT_EQ(phase_ends(recipe), (std::vector<double>{0.25, 1}));
}

}  // namespace
}  // namespace shoestring
