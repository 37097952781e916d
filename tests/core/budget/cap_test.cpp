#include "core/budget/cap.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "kernels/base/check.h"

namespace shoestring {
namespace {

constexpr double kUnlimited = std::numeric_limits<double>::infinity();
constexpr double kClosing = 0.1;  // seconds that stay for closing the ledger

Cap cap_of_seconds(double gpu_seconds) { return {gpu_seconds / 3600, "budget.gpu_hours", kUnlimited}; }

TEST(CapKeeper, KeepsTheReserve) {
  CapKeeper keeper(cap_of_seconds(100), 1, 20);
  keeper.guess(Ending::checkpoint, 5);
  keeper.guess(Ending::evaluation, 3);
  EXPECT_DOUBLE_EQ(keeper.reserve_seconds(), 5 + 1.15 * 3 + kClosing);
  EXPECT_DOUBLE_EQ(keeper.remaining_seconds(10), 70 - (5 + 1.15 * 3) - kClosing);
  keeper.measured(Ending::checkpoint, 2);
  keeper.measured(Ending::checkpoint, 1);
  EXPECT_DOUBLE_EQ(keeper.reserve_seconds(), 1.15 * 3 + 1.15 * 2 + kClosing);
  keeper.step_took(4, 1);
  EXPECT_TRUE(keeper.may_step(70).step);
  EXPECT_FALSE(keeper.may_step(71).step);
  EXPECT_EQ(keeper.may_step(70).limit, CapLimit::none);
  EXPECT_EQ(keeper.may_step(71).limit, CapLimit::run);
  EXPECT_EQ(keeper.key_of(CapLimit::run), "budget.gpu_hours");
}

// A checkpoint that is due before the step is paid before it, and the last one still comes after.
TEST(CapKeeper, WhatComesBeforeAStepMustFitToo) {
  CapKeeper keeper(cap_of_seconds(100), 1, 0);
  keeper.measured(Ending::checkpoint, 10);
  keeper.step_took(4, 1);
  const double checkpoint = keeper.expected_seconds(Ending::checkpoint);
  EXPECT_DOUBLE_EQ(checkpoint, 11.5);
  EXPECT_TRUE(keeper.may_step(80).step);
  EXPECT_FALSE(keeper.may_step(80, checkpoint).step);
  EXPECT_TRUE(keeper.may_step(72, checkpoint).step);
}

// Of what is left at the end both get what they need, or a part in proportion.
TEST(CapKeeper, SuitesComeAfterTheLastEvaluation) {
  CapKeeper keeper(cap_of_seconds(100), 1, 0, 0.2);
  keeper.measured(Ending::evaluation, 10);
  keeper.guess(Ending::suites, 4);
  EXPECT_DOUBLE_EQ(keeper.reserve_seconds(), 11.5 + 4.6 + kClosing);
  EXPECT_DOUBLE_EQ(keeper.seconds_for_evaluation(70, true, true), 20);  // its share of the cap
  EXPECT_DOUBLE_EQ(keeper.seconds_for_evaluation(80, true, true), 20 - kClosing - 4.6);
  EXPECT_DOUBLE_EQ(keeper.seconds_for_evaluation(100 - kClosing - 8, true, true), 8 * 11.5 / 16.1);
  EXPECT_DOUBLE_EQ(keeper.seconds_for_suites(90, true, true), 10 - kClosing);
  keeper.measured(Ending::suites, 100);
  EXPECT_DOUBLE_EQ(keeper.expected_seconds(Ending::suites), 20);  // likewise
  EXPECT_DOUBLE_EQ(keeper.seconds_for_suites(60, true, true), 20);
  // In the middle of a run: the share, or what a step and the reserve leave.
  keeper.step_took(3, 1);
  EXPECT_DOUBLE_EQ(keeper.seconds_for_suites(10, false, false), 20);
  EXPECT_DOUBLE_EQ(keeper.seconds_for_suites(60, false, false), 40 - (11.5 + 20 + kClosing) - 3);
}

// On a machine that is slow now and then, the ending may meet such a moment too.
TEST(CapKeeper, UnevenStepsStretchAGuess) {
  CapKeeper keeper(cap_of_seconds(100), 1, 0);
  keeper.guess(Ending::checkpoint, 1);
  keeper.measured(Ending::export_model, 2);
  for (int i = 0; i < 32; ++i) keeper.step_took(i % 4 == 0 ? 1.25 : 1, 1);
  EXPECT_DOUBLE_EQ(keeper.reserve_seconds(), 1.25 * 1 + 1.15 * 2 + kClosing);
  for (int i = 0; i < 32; ++i) keeper.step_took(i % 4 == 0 ? 90 : 1, 1);
  EXPECT_DOUBLE_EQ(keeper.reserve_seconds(), 2.5 * 1 + 2.5 * 2 + kClosing);
}

// What an evaluation would take is guessed in one moment and needed in another: it follows the pace of the steps.
TEST(CapKeeper, AnEvaluationFollowsThePace) {
  CapKeeper keeper(cap_of_seconds(100), 1, 0);
  const auto steps = [&](double seconds, double tokens) {
    for (int i = 0; i < 32; ++i) keeper.step_took(i % 4 == 0 ? 90 : seconds, tokens);
  };
  const auto expected = [&] { return keeper.expected_seconds(Ending::evaluation); };
  keeper.guess(Ending::evaluation, 9);
  EXPECT_DOUBLE_EQ(expected(), 1.15 * 9);
  steps(1, 10);
  EXPECT_DOUBLE_EQ(expected(), 1.15 * 9);
  steps(2, 20);  // a larger batch
  EXPECT_DOUBLE_EQ(expected(), 1.15 * 9);
  steps(4, 20);
  EXPECT_DOUBLE_EQ(expected(), 1.15 * 2 * 9);
  keeper.guess(Ending::evaluation, 8);
  EXPECT_DOUBLE_EQ(expected(), 1.15 * 8);
  steps(2, 20);
  EXPECT_DOUBLE_EQ(expected(), 1.15 * 4);
  steps(80, 20);
  EXPECT_DOUBLE_EQ(expected(), 1.15 * 5 * 4);
  keeper.measured(Ending::evaluation, 2);
  EXPECT_DOUBLE_EQ(expected(), 1.15 * 2);
}

// The first guess is of an unknown moment; one with the pace of steps holds until the phase is another.
TEST(CapKeeper, AGuessIsWantedOnceMoreWhenThePaceIsKnown) {
  CapKeeper keeper(cap_of_seconds(100), 1, 0);
  EXPECT_TRUE(keeper.wants_guess(Ending::evaluation));
  keeper.guess(Ending::evaluation, 9);
  EXPECT_TRUE(keeper.wants_guess(Ending::evaluation));
  keeper.step_took(1, 10);
  keeper.guess(Ending::evaluation, 8);
  EXPECT_FALSE(keeper.wants_guess(Ending::evaluation));
  keeper.enter_phase();
  EXPECT_TRUE(keeper.wants_guess(Ending::evaluation));
  keeper.measured(Ending::evaluation, 7);
  EXPECT_FALSE(keeper.wants_guess(Ending::evaluation));
}

TEST(CapKeeper, RanksSpendTogetherAndJobsEndAlone) {
  CapKeeper four(cap_of_seconds(100), 4, 0);
  EXPECT_DOUBLE_EQ(four.remaining_seconds(5), 20 - kClosing);
  EXPECT_DOUBLE_EQ(four.seconds_to_cap(5), 20 - kClosing);
  EXPECT_DOUBLE_EQ(four.spent_gpu_hours(9), 0.01);
  CapKeeper job({10, "budget.usd", 60.0 / 3600}, 1, 0);
  EXPECT_DOUBLE_EQ(job.remaining_seconds(0), 60 - kClosing);
  EXPECT_DOUBLE_EQ(job.surely_remaining_of_cap(0), 36000 - kClosing) << "a schedule outlives the job";
  job.step_took(1, 1);
  EXPECT_EQ(job.may_step(60).limit, CapLimit::job);
  EXPECT_EQ(job.key_of(CapLimit::job), "budget.job_hours");
}

// A process that a scheduler started late keeps the account: what the ranks that waited for it spent counts too, and
// the job is as old as they are.
TEST(CapKeeper, ALateFirstRankSpendsNoMore) {
  const HeadStart head_start{.gpu_seconds = 30, .job_seconds = 15};  // of two others
  CapKeeper late(cap_of_seconds(120), 3, 0, 1, head_start);
  EXPECT_DOUBLE_EQ(late.remaining_seconds(5), (120 - 30) / 3.0 - 5 - kClosing);
  EXPECT_DOUBLE_EQ(late.surely_remaining_of_cap(5), (120 - 30) / 3.0 - 5 - kClosing);
  EXPECT_DOUBLE_EQ(late.spent_gpu_hours(5), (30 + 3 * 5) / 3600.0);
  late.step_took(1, 1);
  EXPECT_TRUE(late.may_step(28.8).step);
  EXPECT_EQ(late.may_step(29).limit, CapLimit::run);
  EXPECT_NO_THROW(late.check_startable(29.8));
  EXPECT_THROW(late.check_startable(29.95), Error);

  CapKeeper job({10, "budget.usd", 60.0 / 3600}, 3, 0, 1, head_start);
  EXPECT_DOUBLE_EQ(job.remaining_seconds(5), 60 - 15 - 5 - kClosing);
  job.step_took(1, 1);
  EXPECT_TRUE(job.may_step(43.8).step);
  EXPECT_EQ(job.may_step(44).limit, CapLimit::job);

  CapKeeper first(cap_of_seconds(120), 3, 0, 1, {.gpu_seconds = -30, .job_seconds = 0});
  EXPECT_DOUBLE_EQ(first.spent_gpu_hours(20), (3 * 20 - 30) / 3600.0) << "the others began later";
}

// However long the held-out text is, nine tenths of the cap are for steps, and what does not fit is cut.
TEST(CapKeeper, AnEvaluationIsBoundedByItsShare) {
  CapKeeper keeper(cap_of_seconds(400), 4, 0, 0.1);
  keeper.guess(Ending::evaluation, 5000);
  keeper.guess(Ending::checkpoint, 2);
  EXPECT_DOUBLE_EQ(keeper.expected_seconds(Ending::evaluation), 10);
  EXPECT_DOUBLE_EQ(keeper.reserve_seconds(), 10 + 2 + kClosing);
  keeper.step_took(1, 1);
  EXPECT_TRUE(keeper.may_step(100 - kClosing - 12 - 1.01).step);
  EXPECT_FALSE(keeper.may_step(100 - kClosing - 12 - 0.99).step);
  EXPECT_DOUBLE_EQ(keeper.seconds_for_evaluation(50, true, false), 10);
  EXPECT_DOUBLE_EQ(keeper.seconds_for_evaluation(50, true, true), 10);  // the last one too, though time is left
  EXPECT_DOUBLE_EQ(keeper.seconds_for_evaluation(95, true, true), 5 - kClosing);
  EXPECT_DOUBLE_EQ(keeper.seconds_for_evaluation(95, false, false), 5 - kClosing - 2);
  keeper.measured(Ending::evaluation, 4);
  EXPECT_DOUBLE_EQ(keeper.expected_seconds(Ending::evaluation), 1.15 * 4);

  CapKeeper job({10, "budget.usd", 60.0 / 3600}, 1, 0, 0.1);
  job.guess(Ending::evaluation, 5000);
  EXPECT_DOUBLE_EQ(job.expected_seconds(Ending::evaluation), 6);
}

// A run whose start leaves room for a step and a checkpoint takes that step; the evaluation gets what is left.
TEST(CapKeeper, TheFirstStepGoesBeforeTheEvaluation) {
  CapKeeper keeper(cap_of_seconds(100), 1, 0, 0.1);
  keeper.guess(Ending::evaluation, 50);
  keeper.guess(Ending::checkpoint, 2);
  EXPECT_NO_THROW(keeper.check_startable(97));
  EXPECT_THROW(keeper.check_startable(98), Error);
  EXPECT_TRUE(keeper.may_step(97).step);
  EXPECT_FALSE(keeper.may_step(98).step);
  keeper.step_took(0.5, 1);
  EXPECT_FALSE(keeper.may_step(90).step);
  EXPECT_TRUE(keeper.may_step(87).step);
}

// A plan made in a good moment must not find its reserve grown in a bad one.
TEST(CapKeeper, WhatAPlanReliesOnDoesNotShrinkInABadMoment) {
  CapKeeper keeper(cap_of_seconds(1000), 1, 0);
  keeper.guess(Ending::checkpoint, 2);
  keeper.guess(Ending::evaluation, 4);
  for (int i = 0; i < 40; ++i) keeper.step_took(1, 1);
  EXPECT_NEAR(keeper.surely_remaining_of_cap(0), 1000 - 2.5 * 2 - 1.15 * 1.25 * 4 - kClosing, 1e-9);
  for (int i = 0; i < 8; ++i) keeper.step_took(2, 1);
  EXPECT_LT(keeper.surely_remaining_of_cap(0), keeper.remaining_seconds(0));
  const double before = keeper.surely_remaining_of_cap(0);
  for (int i = 0; i < 40; ++i) keeper.step_took(2, 1);
  EXPECT_NEAR(keeper.surely_remaining_of_cap(0), before - (2 * 1.25 - 2) * 1.15 * 4, 1e-9)
      << "a moment worse than the slow pace may still come";
}

TEST(CapKeeper, ASpentBudgetRefusesToStart) {
  CapKeeper spent(cap_of_seconds(100), 1, 98);
  spent.guess(Ending::checkpoint, 3);
  try {
    spent.check_startable(0.1);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::budget_spent);
    EXPECT_NE(std::string(error.what()).find("budget.gpu_hours"), std::string::npos);
  }
  EXPECT_NO_THROW(CapKeeper(cap_of_seconds(100), 1, 98).check_startable(0.1));
}

}  // namespace
}  // namespace shoestring
