#include "core/budget/planner.h"

#include <gtest/gtest.h>

#include <limits>

#include "core/recipe/explain.h"
#include "kernels/base/json.h"
#include "tests/support/temporary_folder.h"

namespace shoestring {
namespace {

constexpr double kUnlimited = std::numeric_limits<double>::infinity();

/// Two phases of 1000 and 500 tokens a step, at 2 and 4 seconds; 10 s around them.
class PlannerTest : public ::testing::Test {
 protected:
  PlannerTest() {
    recipe_.phases = {{.name = "first", .sequence = 100, .global_batch = 10, .tokens = 20'000, .steps = 30},
                      {.name = "second", .sequence = 50, .global_batch = 10, .tokens = 5'000, .steps = 40}};
    recipe_.evaluation.cap_share = 1;
    recipe_.checkpoint.every_steps = 0;
    recipe_.checkpoint.every_minutes = 0;
    speeds_ = {.startup_seconds = 3,
               .checkpoint_seconds = 2,
               .phases = {{.step_seconds = 2, .tokens_per_step = 990, .evaluation_seconds = 6},
                          {.step_seconds = 4, .tokens_per_step = 480, .evaluation_seconds = 5}}};
  }

  Plan plan(Horizon horizon, double cap_seconds) {
    recipe_.schedule.horizon = horizon;
    return make_plan(recipe_, cap_seconds / 3600, speeds_);
  }

  Recipe recipe_;
  Speeds speeds_;
};

TEST_F(PlannerTest, TokensAndStepsTakeTheirTime) {
  const Plan by_tokens = plan(Horizon::tokens, kUnlimited);
  ASSERT_EQ(by_tokens.phases.size(), 2u);
  EXPECT_EQ(by_tokens.phases[0].steps, 20);
  EXPECT_EQ(by_tokens.phases[1].steps, 10);
  EXPECT_DOUBLE_EQ(by_tokens.tokens(), 20 * 990 + 10 * 480);
  EXPECT_DOUBLE_EQ(by_tokens.gpu_hours() * 3600, 10 + 20 * 2 + 10 * 4);
  EXPECT_FALSE(by_tokens.cut_short);
  const Plan by_steps = plan(Horizon::steps, 1000);
  EXPECT_EQ(by_steps.steps(), 70);
  EXPECT_DOUBLE_EQ(by_steps.gpu_hours() * 3600, 10 + 30 * 2 + 40 * 4);
  EXPECT_FALSE(by_steps.cut_short);
}

// Once a phase, and once more where a save comes first.
TEST_F(PlannerTest, ForetellingTheEvaluationCosts) {
  speeds_.phases[0].guess_seconds = 0.5;
  speeds_.phases[1].guess_seconds = 0.25;
  EXPECT_DOUBLE_EQ(plan(Horizon::steps, 1000).gpu_hours() * 3600, 10.75 + 30 * 2 + 40 * 4);
  EXPECT_DOUBLE_EQ(plan(Horizon::steps, 1000).seconds[Category::evaluation], 5 + 0.75);
  recipe_.checkpoint.every_steps = 10;
  EXPECT_DOUBLE_EQ(plan(Horizon::steps, 1000).seconds[Category::evaluation], 5 + 1.25);
  recipe_.evaluation.every_steps = 4;
  EXPECT_DOUBLE_EQ(plan(Horizon::steps, 1000).seconds[Category::evaluation], 5 + 0.75 + 30 * 6 / 4.0 + 40 * 5 / 4.0);
}

TEST_F(PlannerTest, WhatComesBetweenStepsCosts) {
  recipe_.evaluation.every_steps = 4;
  recipe_.checkpoint.every_steps = 10;
  recipe_.checkpoint.every_minutes = 0.5;
  const double first = (2 + 6.0 / 4 + 2.0 / 10) * (1 + 2.0 / 30);
  const double second = (4 + 5.0 / 4 + 2.0 / 10) * (1 + 2.0 / 30);
  EXPECT_DOUBLE_EQ(plan(Horizon::steps, 1000).gpu_hours() * 3600, 10 + 30 * first + 40 * second);
}

// Questions at the end of each phase are paid for as all else around the steps is, up to their share of the cap.
TEST_F(PlannerTest, SuitesTakeTimeFromTheSteps) {
  speeds_.phases[0].suites_seconds = 7;
  speeds_.phases[1].suites_seconds = 900;
  recipe_.evaluation.cap_share = 0.01;
  const Plan free = plan(Horizon::steps, 100'000);
  EXPECT_DOUBLE_EQ(free.gpu_hours() * 3600, 10 + 7 + 900 + 30 * 2 + 40 * 4);
  EXPECT_DOUBLE_EQ(free.seconds[Category::evaluation], 5 + 7 + 900);
  const Plan cut = plan(Horizon::steps, 1000);
  EXPECT_DOUBLE_EQ(cut.gpu_hours() * 3600, 10 + 7 + 10 + 30 * 2 + 40 * 4);
}

// What the run will cut is not planned whole.
TEST_F(PlannerTest, AnEvaluationTakesItsShareOfTheCapAtMost) {
  recipe_.evaluation.cap_share = 0.003;
  EXPECT_DOUBLE_EQ(plan(Horizon::steps, 1000).seconds[Category::evaluation], 3);
  recipe_.evaluation.every_steps = 10;
  EXPECT_DOUBLE_EQ(plan(Horizon::steps, 1000).seconds[Category::evaluation], 3 + 3 * 3 + 4 * 3);
}

TEST_F(PlannerTest, TheCapCutsTheLastPhasesShort) {
  const Plan in_second = plan(Horizon::steps, 10 + 60 + 7);
  EXPECT_TRUE(in_second.cut_short);
  EXPECT_EQ(in_second.phases[0].steps, 30);
  EXPECT_EQ(in_second.phases[1].steps, 1);
  const Plan in_first = plan(Horizon::steps, 10 + 21);
  EXPECT_EQ(in_first.phases[0].steps, 10);
  EXPECT_EQ(in_first.phases[1].steps, 0);
  EXPECT_LE(in_first.gpu_hours() * 3600, 31);
  EXPECT_EQ(plan(Horizon::steps, 5).steps(), 0);
  EXPECT_DOUBLE_EQ(plan(Horizon::steps, 5).gpu_hours() * 3600, 5);
}

TEST_F(PlannerTest, PhasesShareABudget) {
  recipe_.phases[1].share = 3;
  const Plan shared = plan(Horizon::budget, 10 + 400);
  EXPECT_EQ(shared.phases[0].steps, 50);
  EXPECT_EQ(shared.phases[1].steps, 75);
  EXPECT_FALSE(shared.cut_short);
  EXPECT_DOUBLE_EQ(shared.gpu_hours() * 3600, 410);
}

// Two ranks side by side: the same wall-clock time, twice the GPU-hours, and half as much of it under a cap.
TEST_F(PlannerTest, RanksGoSideBySide) {
  const Plan one = plan(Horizon::steps, 1000);
  speeds_.ranks = 2;
  const Plan two = plan(Horizon::steps, 2000);
  EXPECT_EQ(two.steps(), one.steps());
  EXPECT_DOUBLE_EQ(two.gpu_hours(), 2 * one.gpu_hours());
  EXPECT_EQ(plan(Horizon::steps, 2 * (10 + 60 + 7)).phases[1].steps, 1);
}

TEST_F(PlannerTest, SaysWhatTheHoursGoTo) {
  speeds_.ranks = 2;
  speeds_.trial_seconds = 7;
  recipe_.evaluation.every_steps = 10;
  CategorySeconds& parts = speeds_.phases[0].parts;
  parts[Category::compute] = 1.2;
  parts[Category::bubble] = 0.4;
  const Plan made = plan(Horizon::steps, 1e6);
  EXPECT_DOUBLE_EQ(made.seconds[Category::startup], 2 * (7 + 3));
  EXPECT_DOUBLE_EQ(made.seconds[Category::checkpoint], 2 * 2);
  EXPECT_DOUBLE_EQ(made.seconds[Category::evaluation], 2 * (5 + 3 * 6 + 4 * 5));
  EXPECT_DOUBLE_EQ(made.seconds[Category::bubble], 2 * 30 * 2 * 0.25);
  EXPECT_DOUBLE_EQ(made.seconds[Category::compute], 2 * (30 * 2 * 0.75 + 40 * 4));
  EXPECT_NEAR(made.seconds.total() / 3600, made.gpu_hours(), 1e-9);
}

TEST_F(PlannerTest, IsStoredForTheReport) {
  testing::TemporaryFolder folder;
  const Plan made = plan(Horizon::tokens, kUnlimited);
  write_plan(folder.path(), made, recipe_);
  const Json stored = parse_json(testing::read_text(folder.path() / kPlanFile), "plan.json");
  EXPECT_EQ(stored.text_or("schema", ""), kPlanSchema);
  EXPECT_DOUBLE_EQ(stored.at("gpu_hours").number(), made.gpu_hours());
  EXPECT_DOUBLE_EQ(stored.at("tokens").number(), made.tokens());
  EXPECT_DOUBLE_EQ(stored.at("categories").at("checkpoint").number(), 2.0 / 3600);
  EXPECT_EQ(stored.text_or("recipe", ""), recipe_hash(recipe_));
}

}  // namespace
}  // namespace shoestring
