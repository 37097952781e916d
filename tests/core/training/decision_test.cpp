// No clock, no ranks: the function is pure. How ranks agree on its words is tested in trainer_test.cpp.
#include "core/training/decision.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "kernels/base/check.h"

namespace shoestring {
namespace {

constexpr double kUnlimited = std::numeric_limits<double>::infinity();

/// Two phases of ten steps; 1000 s of cap, of which a step takes 2.
class DecisionTest : public ::testing::Test {
 protected:
  DecisionTest() {
    recipe_.schedule.horizon = Horizon::steps;
    recipe_.checkpoint.every_minutes = 0;
    recipe_.checkpoint.every_steps = 0;
    recipe_.evaluation.every_steps = 0;
    for (const char* name : {"first", "second"}) {
      PhaseSpec phase;
      phase.name = name;
      phase.sequence = 16;
      phase.steps = 10;
      phase.tokens = 160;
      phase.share = 0.5;
      recipe_.phases.push_back(phase);
    }
    state_.step = state_.phase_steps = 4;
    state_.phase_samples = 4;
    state_.loss = 1;
  }
  static CapKeeper keeper(double cap_seconds, double job_seconds = kUnlimited) {
    CapKeeper cap({cap_seconds / 3600, "budget.usd", job_seconds / 3600}, 1, 0);
    for (int i = 0; i < 2; ++i) cap.step_took(2, 1);
    return cap;
  }
  Decision at(double seconds) const { return at(seconds, keeper(1000)); }
  Decision at(double seconds, const CapKeeper& cap) const { return decide(recipe_, standing_, seconds, cap); }

  Recipe recipe_;
  TrainingState state_;
  Standing standing_{.state = state_};
};

TEST_F(DecisionTest, TakesAStepWhereNothingIsDue) { EXPECT_EQ(at(1), Decision{}); }

// Each reason, in the order in which they outdo one another.
TEST_F(DecisionTest, SaysWhyItStops) {
  EXPECT_EQ(at(999).stop, Stop::budget);
  EXPECT_EQ(at(99, keeper(1000, 100)).stop, Stop::job);
  standing_.first_step = 4;
  EXPECT_EQ(at(99, keeper(1000, 100)).stop, Stop::job_too_short);
  EXPECT_EQ(at(999).stop, Stop::budget);
  state_.phase = 1;
  state_.phase_steps = 10;
  EXPECT_EQ(at(999).stop, Stop::horizon);
  standing_.stop_requested = true;
  EXPECT_EQ(at(999).stop, Stop::signal);
}

TEST_F(DecisionTest, OnlySignalsAndJobsLeaveTheRunUnfinished) {
  EXPECT_TRUE(goes_on_later(Stop::signal));
  EXPECT_TRUE(goes_on_later(Stop::job));
  for (const Stop stop : {Stop::none, Stop::horizon, Stop::budget, Stop::job_too_short}) {
    EXPECT_FALSE(goes_on_later(stop)) << static_cast<int>(stop);
  }
}

TEST_F(DecisionTest, NothingElseIsSetWithAStop) {
  recipe_.checkpoint.every_steps = 4;
  recipe_.evaluation.every_steps = 4;
  recipe_.schedule.horizon = Horizon::budget;
  standing_.held_out = true;
  ASSERT_TRUE(at(1).save && at(1).evaluate && at(1).horizon);
  standing_.stop_requested = true;
  EXPECT_EQ(at(1), Decision{.stop = Stop::signal});
}

TEST_F(DecisionTest, SavesAndEvaluatesOnceWhenDue) {
  recipe_.checkpoint.every_steps = 2;
  recipe_.evaluation.every_steps = 4;
  EXPECT_EQ(at(1), Decision{.save = true});  // no held-out text
  standing_.held_out = true;
  EXPECT_EQ(at(1), (Decision{.evaluate = true, .save = true}));
  standing_.saved_step = 4;
  EXPECT_EQ(at(1), Decision{.evaluate = true});
  standing_.evaluated_step = 4;
  EXPECT_EQ(at(1), Decision{});
  state_.step = 5;
  EXPECT_EQ(at(1), Decision{});
  state_.step = 0;
  EXPECT_EQ(at(1), Decision{});
}

TEST_F(DecisionTest, SavesWhenTheLastCheckpointIsOld) {
  recipe_.checkpoint.every_minutes = 1;
  standing_.saved_at = 100;
  EXPECT_FALSE(at(160).save);
  EXPECT_TRUE(at(160.5).save);
  standing_.saved_step = state_.step;
  EXPECT_FALSE(at(160.5).save);
}

TEST_F(DecisionTest, ALossThatIsNoNumberIsNotSaved) {
  recipe_.checkpoint.every_steps = 2;
  state_.loss = std::nan("");
  EXPECT_FALSE(at(1).save);
}

// Both are due; 40 s of a checkpoint leave no room for 50 s of an evaluation, and later neither fits before a step.
TEST_F(DecisionTest, WhatLeavesNoRoomForAStepIsPutOff) {
  recipe_.checkpoint.every_steps = recipe_.evaluation.every_steps = 2;
  standing_.held_out = true;
  CapKeeper cap = keeper(1000);
  cap.guess(Ending::checkpoint, 40);
  cap.measured(Ending::evaluation, 50);  // 57.5 s with its margin; both once more after the last step
  const double left = 40 + 57.5 + 0.1 + 2;
  EXPECT_EQ(at(1000 - left - 40 - 57.6, cap), (Decision{.evaluate = true, .save = true}));
  EXPECT_EQ(at(1000 - left - 40 - 57.4, cap), Decision{.save = true});
  EXPECT_EQ(at(1000 - left - 39.9, cap), Decision{});
  EXPECT_EQ(at(1000 - left + 0.1, cap), Decision{.stop = Stop::budget});
}

TEST_F(DecisionTest, PlansTheHorizonFromTheCap) {
  recipe_.schedule.horizon = Horizon::budget;
  const Decision decision = at(0);
  ASSERT_TRUE(decision.horizon.has_value());
  EXPECT_EQ(decision.horizon->step, 4);
  EXPECT_EQ(decision.horizon->end_step, 4 + 249);  // half of 1000 s at 2 s, the closing of the ledger left out
  EXPECT_EQ(decision.horizon->end_progress, 0.5);
  state_.decisions.push_back(*decision.horizon);
  EXPECT_FALSE(at(0).horizon.has_value());
}

TEST_F(DecisionTest, PhasesFollowOneAnother) {
  for (const Horizon horizon : {Horizon::steps, Horizon::tokens}) {
    recipe_.schedule.horizon = horizon;
    state_.phase = 0;
    state_.phase_steps = state_.phase_samples = 9;
    EXPECT_EQ(at(1), Decision{});
    EXPECT_DOUBLE_EQ(progress_of(recipe_, state_), 0.45);
    state_.phase_steps = state_.phase_samples = 10;
    EXPECT_EQ(at(1), Decision{.next_phase = true});
    EXPECT_DOUBLE_EQ(progress_of(recipe_, state_), 0.5);
    state_.phase = 1;
    EXPECT_EQ(at(1), Decision{.stop = Stop::horizon});
    EXPECT_DOUBLE_EQ(progress_of(recipe_, state_), 1);
  }
}

// A budget horizon enters the next phase by progress, and its last one is ended by the cap alone.
TEST_F(DecisionTest, ABudgetEndsNoPhaseButTheLast) {
  recipe_.schedule.horizon = Horizon::budget;
  state_.decisions = {{.step = 0, .progress = 0, .end_step = 4, .end_progress = 0.5, .phase = 0}};
  EXPECT_TRUE(at(0).next_phase);
  state_.phase = 1;
  state_.decisions = {{.step = 0, .progress = 0.5, .end_step = 4, .end_progress = 1, .phase = 1}};
  EXPECT_TRUE(phase_finished(recipe_, state_));
  EXPECT_FALSE(at(0).next_phase);
  EXPECT_EQ(at(0).stop, Stop::none);
}

// One field at a time away from its default: each has a word of its own, and no bit is lost.
TEST_F(DecisionTest, TravelsWithEveryField) {
  constexpr std::int64_t kLarge = (std::int64_t{1} << 53) + 1;  // no double
  const double third = 1.0 / 3;
  std::vector<Decision> decisions = {
      {},
      {.evaluate = true},
      {.save = true},
      {.next_phase = true},
      {.horizon = HorizonDecision{.end_progress = 0}},
      {.horizon = HorizonDecision{.step = kLarge}},
      {.horizon = HorizonDecision{.progress = third}},
      {.horizon = HorizonDecision{.end_step = kLarge}},
      {.horizon = HorizonDecision{.end_progress = third}},
      {.horizon = HorizonDecision{.phase = 3}},
  };
  for (int stop = 1; stop < kStops; ++stop) decisions.push_back({.stop = static_cast<Stop>(stop)});
  for (std::size_t i = 0; i < decisions.size(); ++i) {
    EXPECT_EQ(decision_of(words_of(decisions[i])), decisions[i]) << i;
    for (std::size_t other = 0; other < i; ++other) EXPECT_NE(words_of(decisions[i]), words_of(decisions[other]));
  }
}

TEST_F(DecisionTest, RefusesAReasonThatIsNone) {
  DecisionWords words = words_of({.stop = Stop::signal});
  for (std::int64_t& word : words) word = word == static_cast<int>(Stop::signal) ? kStops : word;
  EXPECT_THROW(decision_of(words), Error);
}

TEST_F(DecisionTest, PatienceEndsAPhaseAndTheLastOneTheRun) {
  for (PhaseSpec& phase : recipe_.phases) phase.patience = 3;
  state_.stale_evaluations = 2;
  EXPECT_FALSE(early_stop(recipe_, state_));
  EXPECT_EQ(at(1), Decision{});
  state_.stale_evaluations = 3;
  EXPECT_TRUE(at(1).next_phase);
  state_.phase = 1;
  EXPECT_EQ(at(1).stop, Stop::horizon);
  recipe_.schedule.horizon = Horizon::budget;
  EXPECT_EQ(at(1).stop, Stop::horizon) << "a budget horizon too";
  recipe_.phases[1].patience = 0;
  EXPECT_EQ(at(1).stop, Stop::none);
}

TEST_F(DecisionTest, APhaseMayHaveItsOwnPeak) {
  recipe_.schedule.learning_rate = 3;
  recipe_.phases[1].learning_rate = 5;
  EXPECT_EQ(schedule_of_phase(recipe_, 0).learning_rate, 3);
  EXPECT_EQ(schedule_of_phase(recipe_, 1).learning_rate, 5);
}

// Its rate has come down with the cap of an earlier attempt; more budget buys steps at the last rate alone.
TEST_F(DecisionTest, ALandedScheduleDoesNotGoOnUnderAHigherCap) {
  recipe_.schedule.horizon = Horizon::budget;
  LedgerHistory history;
  history.attempts.resize(1);
  history.attempts[0].reason = "budget";
  history.attempts[0].start.cap.gpu_hours = 2;
  const auto refused = [&](double gpu_hours) {
    try {
      check_schedule_left(recipe_, state_, history, {gpu_hours, "budget.gpu_hours"});
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::bad_recipe);
      return true;
    }
    return false;
  };
  state_.decisions = {{.step = 0, .progress = 0, .end_step = 4, .end_progress = 1, .phase = 0}};
  EXPECT_TRUE(refused(3));
  EXPECT_FALSE(refused(2));  // what the cap says of it is another matter
  history.attempts[0].reason = "preempted";
  EXPECT_FALSE(refused(3));
  history.attempts[0].reason = "budget";
  state_.decisions[0].end_step = 5;  // 0.8 of the way
  EXPECT_FALSE(refused(3));
  recipe_.schedule.horizon = Horizon::steps;
  state_.decisions[0].end_step = 4;
  EXPECT_FALSE(refused(3));
}

}  // namespace
}  // namespace shoestring
