#include "core/training/guard.h"

#include <gtest/gtest.h>

#include <cmath>

namespace shoestring {
namespace {

const GuardSpec kSpec = {.spike_sigmas = 6, .window = 16, .on_repeat = OnRepeat::clip, .skip_limit = 3};
const GuardSpec kReturning = {.spike_sigmas = 6, .window = 16, .on_repeat = OnRepeat::go_back, .skip_limit = 3};
constexpr double kClip = 4;

double wobble(int step) { return 2.0 + 0.01 * std::sin(step); }

/// A guard that has seen 20 ordinary steps, norms about 3.
Guard seasoned(const GuardSpec& spec, double clip = kClip) {
  Guard guard(spec, clip);
  for (int step = 1; step <= 20; ++step) EXPECT_EQ(guard.judge(wobble(step), 1.0 + wobble(step)).why, "");
  return guard;
}

TEST(Guard, AFiniteNormIsClippedNeverSkipped) {
  Guard guard = seasoned(kSpec);
  for (const double norm : {5.0, 9.93, 3000.0, 1e30}) {
    const Judgement judgement = guard.judge(2.0, norm);
    EXPECT_EQ(judgement.verdict, StepVerdict::apply);
    EXPECT_LE(judgement.norm_limit, kClip);
  }
  EXPECT_EQ(guard.state().clipped, 4);
  EXPECT_EQ(guard.state().skipped, 0);
}

// With clipping off a norm that stands out is still brought down to the bound it broke.
TEST(Guard, BoundsWhatStandsOutWhereClippingIsOff) {
  Guard guard = seasoned(kSpec, 0);
  EXPECT_NEAR(guard.judge(2.0, 3000.0).norm_limit, 3.04, 0.02);
  EXPECT_EQ(guard.state().clipped, 1);
  Guard young(kSpec, 0);
  EXPECT_EQ(young.judge(2.0, 3000.0).norm_limit, INFINITY);
  EXPECT_EQ(young.state().clipped, 0);
}

TEST(Guard, OneStrangeLossIsSkippedASecondIsNot) {
  Guard guard = seasoned(kSpec);
  const Judgement first = guard.judge(20.0, 3.0);
  EXPECT_EQ(first.verdict, StepVerdict::skip);
  EXPECT_NE(first.why.find("loss 20 exceeds"), std::string::npos) << first.why;
  EXPECT_EQ(guard.state().skipped_in_row, 1);
  for (int again = 0; again < 5; ++again) {
    EXPECT_EQ(guard.judge(20.0, 9.0).verdict, StepVerdict::apply);
    EXPECT_EQ(guard.state().skipped_in_row, 0);
  }
  EXPECT_EQ(guard.judge(wobble(1), 3.0).why, "");
  EXPECT_EQ(guard.state().strange_in_row, 0);
  EXPECT_EQ(guard.state().skipped, 1);
}

// A run that has moved to another level is not held against its past for ever; a single absurd value blinds nobody.
TEST(Guard, TheWindowFollowsWithoutBeingBlinded) {
  Guard guard = seasoned(kSpec);
  int strange = 0;
  while (strange < 100 && !guard.judge(3.0, 3.0).why.empty()) ++strange;
  EXPECT_GT(strange, 1);
  EXPECT_LT(strange, kSpec.window);

  Guard shocked = seasoned(kSpec);
  shocked.judge(1e30, 3.0);
  shocked.judge(wobble(1), 3.0);
  EXPECT_EQ(shocked.judge(20.0, 3.0).verdict, StepVerdict::skip);
}

TEST(Guard, SaysNothingBeforeHalfAWindow) {
  Guard guard(kSpec, kClip);
  EXPECT_EQ(guard.judge(1.0, 1.0).why, "");
  EXPECT_EQ(guard.judge(1000.0, 1.0).why, "");
}

// Values that never vary have no deviation: their rounding is no spike.
TEST(Guard, RoundingIsNoSpike) {
  Guard guard(kSpec, kClip);
  for (int step = 0; step < 40; ++step) EXPECT_EQ(guard.judge(0.1 + 1e-9 * (step % 3), 0.3).why, "") << step;
}

// Smaller batches have larger norms: they are no spikes.
TEST(Guard, ForgetsWhatAnotherPhaseWasLike) {
  Guard guard = seasoned(kSpec);
  guard.forget();
  EXPECT_EQ(guard.judge(20.0, 300.0).why, "");
  EXPECT_EQ(guard.state().losses.size(), 1u);
}

TEST(Guard, OnlyStepsThatAreNotFiniteEndARun) {
  for (const auto& [loss, norm] : {std::pair<double, double>(NAN, 1), std::pair<double, double>(2, INFINITY)}) {
    Guard guard = seasoned(kSpec);
    EXPECT_EQ(guard.judge(loss, norm).verdict, StepVerdict::skip);
    EXPECT_EQ(guard.judge(loss, norm).verdict, StepVerdict::skip);
    EXPECT_EQ(guard.judge(loss, norm).verdict, StepVerdict::end);
    EXPECT_EQ(guard.state().losses.size(), 16u);
    for (const double kept : guard.state().norms) EXPECT_TRUE(std::isfinite(kept));
  }
  Guard mixed = seasoned(kSpec);  // what is finite between them counts from anew
  for (int round = 0; round < 5; ++round) {
    EXPECT_EQ(mixed.judge(NAN, 1.0).verdict, StepVerdict::skip);
    EXPECT_EQ(mixed.judge(2.0, 3.0).verdict, StepVerdict::apply);
  }
}

TEST(Guard, GoesBackOnceWhereTheRecipeSaysSo) {
  Guard guard = seasoned(kReturning);
  const GuardState then = guard.state();
  EXPECT_EQ(guard.judge(20.0, 3.0, true).verdict, StepVerdict::skip);
  EXPECT_EQ(guard.judge(20.0, 3.0, true).verdict, StepVerdict::go_back);
  guard.went_back(then);
  EXPECT_EQ(guard.state().losses, then.losses);
  EXPECT_EQ(guard.state().returns, 1);
  EXPECT_EQ(guard.state().skipped_in_row, 0);
  EXPECT_EQ(guard.judge(20.0, 3.0, true).verdict, StepVerdict::apply);  // that did not help: the step is taken
  EXPECT_EQ(guard.judge(2.0, 3.0, true).verdict, StepVerdict::apply);
  EXPECT_EQ(guard.judge(20.0, 3.0, true).verdict, StepVerdict::skip);
  EXPECT_EQ(guard.judge(NAN, 3.0, true).verdict, StepVerdict::go_back);
  guard.stayed();
  EXPECT_EQ(guard.judge(20.0, 3.0, true).verdict, StepVerdict::apply);
}

TEST(Guard, WithoutACheckpointItTakesTheClippedStep) {
  Guard guard = seasoned(kReturning);
  EXPECT_EQ(guard.judge(20.0, 3.0, false).verdict, StepVerdict::skip);
  EXPECT_EQ(guard.judge(20.0, 3.0, false).verdict, StepVerdict::apply);
}

// What a run is judged by that comes to its end.
TEST(Guard, CountsTheLastStepsThatWereNotFinite) {
  Guard guard = seasoned(kReturning);
  const GuardState then = guard.state();
  EXPECT_EQ(then.broken_in_row, 0);
  guard.judge(2.0, INFINITY, true);
  guard.judge(NAN, 3.0, true);
  EXPECT_EQ(guard.state().broken_in_row, 2);
  guard.went_back(then);
  EXPECT_EQ(guard.state().broken_in_row, 0);
  guard.judge(NAN, 3.0, true);
  guard.judge(20.0, 3.0, true);  // strange, and a number
  EXPECT_EQ(guard.state().broken_in_row, 0);
}

TEST(Guard, RestoredStateDecidesTheSame) {
  for (const GuardSpec& spec : {kSpec, kReturning}) {
    Guard guard = seasoned(spec);
    guard.judge(20.0, 3.0, true);
    Guard resumed(spec, kClip);
    resumed.restore(guard.state());
    for (const double loss : {2.0, 2.05, 2.08, 20.0, 20.0, 2.0, static_cast<double>(NAN)}) {
      const Judgement a = guard.judge(loss, 3.0, true);
      const Judgement b = resumed.judge(loss, 3.0, true);
      EXPECT_EQ(a.verdict, b.verdict);
      EXPECT_EQ(a.norm_limit, b.norm_limit);
      EXPECT_EQ(a.why, b.why);
    }
  }
}

}  // namespace
}  // namespace shoestring
