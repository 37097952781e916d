#include "core/budget/horizon.h"

#include <gtest/gtest.h>

#include "core/budget/step_seconds.h"

namespace shoestring {
namespace {

StepSeconds even(double seconds, int count = 40) {
  StepSeconds steps;
  for (int i = 0; i < count; ++i) steps.add(seconds, 1);
  return steps;
}

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
  const StepSeconds half = even(0.5);
  const StepSeconds one = even(1);
  EXPECT_FALSE(plan_horizon({10, 0, 0, 100, 0, even(0.5, 1)}, ends, nullptr)) << "too little measured";
  const auto first = plan_horizon({10, 0, 0, 100, 0, half}, ends, nullptr);
  ASSERT_TRUE(first);
  // Of the 99.5 s up to the last step 6.2 are for a slow stretch, of a twentieth of the 199 that are expected.
  EXPECT_EQ(first->end_step, 10 + 196);
  EXPECT_EQ(first->end_progress, 1);
  EXPECT_FALSE(plan_horizon({11, 0.005, 0, 99.5, 0, half}, ends, &*first)) << "still lands";
  const auto slower = plan_horizon({11, 0.005, 0, 99, 0, one}, ends, &*first);
  ASSERT_TRUE(slower);
  EXPECT_EQ(slower->end_step, 11 + 96);
  EXPECT_EQ(slower->progress, 0.005);
  const auto pausing = plan_horizon({11, 0.005, 0, 99, 0.5, half}, ends, &*first);
  ASSERT_TRUE(pausing);
  EXPECT_LT(pausing->end_step, 11 + 98);
}

// Too late by one step in a hundred matters, too early does not: what is left over is taken at the final rate.
TEST(Horizon, ItIsWorseToBeLateThanEarly) {
  const std::vector<double> ends = {1};
  const StepSeconds one = even(1);
  const auto planned = plan_horizon({10, 0, 0, 1000, 0, one}, ends, nullptr);
  ASSERT_TRUE(planned);
  const auto replanned = [&](double seconds) { return plan_horizon({10, 0, 0, seconds, 0, one}, ends, &*planned); };
  EXPECT_FALSE(replanned(996));
  EXPECT_TRUE(replanned(990));
  EXPECT_FALSE(replanned(1018));
  EXPECT_TRUE(replanned(1030));
}

TEST(Horizon, PhasesShareTheRest) {
  const std::vector<double> ends = {0.75, 1};
  const auto first = plan_horizon({0, 0, 0, 100, 0, even(1)}, ends, nullptr);
  EXPECT_EQ(first->end_step, 75) << "what a phase takes too much the next one lacks: only the last aims to be early";
  EXPECT_EQ(first->end_progress, 0.75);
  const auto second = plan_horizon({75, 0.75, 1, 25, 0, even(5)}, ends, &*first);
  ASSERT_TRUE(second) << "another phase always makes its own plan";
  EXPECT_EQ(second->end_step, 75 + 3);
  EXPECT_EQ(second->phase, 1);
}

TEST(Horizon, APlanUsedUpStays) {
  const std::vector<double> ends = {1};
  const HorizonDecision used{0, 0, 10, 1, 0};
  EXPECT_FALSE(plan_horizon({10, 1, 0, 300, 0, even(1)}, ends, &used));
  EXPECT_FALSE(plan_horizon({10, 1, 0, -4, 0, even(1)}, ends, &used));
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
