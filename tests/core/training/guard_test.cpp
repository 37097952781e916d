#include "core/training/guard.h"

#include <gtest/gtest.h>

#include <cmath>

#include "kernels/base/check.h"

namespace shoestring {
namespace {

const GuardSpec kSpec = {.spike_sigmas = 6, .window = 16, .skip_limit = 3};

double wobble(int step) { return 2.0 + 0.01 * std::sin(step); }

TEST(Guard, AcceptsTheOrdinaryAndSkipsSpikes) {
  Guard guard(kSpec);
  for (int step = 1; step <= 20; ++step) EXPECT_EQ(guard.judge(step, wobble(step), 1.0 + wobble(step)), "");
  EXPECT_NE(guard.judge(21, 20.0, 3.0).find("loss"), std::string::npos);
  EXPECT_NE(guard.judge(22, 2.0, 3000.0).find("gradient norm"), std::string::npos);
  EXPECT_EQ(guard.judge(23, wobble(23), 3.0), "");
  EXPECT_EQ(guard.state().skipped, 2);
  EXPECT_EQ(guard.state().skipped_in_row, 0);
}

// Smaller batches have larger norms: they are no spikes.
TEST(Guard, ForgetsWhatAnotherPhaseWasLike) {
  Guard guard(kSpec);
  for (int step = 1; step <= 20; ++step) guard.judge(step, wobble(step), 1.0 + wobble(step));
  guard.forget();
  EXPECT_EQ(guard.judge(21, 20.0, 300.0), "");
  EXPECT_EQ(guard.state().losses.size(), 1u);
}

TEST(Guard, SaysNothingBeforeHalfAWindow) {
  Guard guard(kSpec);
  EXPECT_EQ(guard.judge(1, 1.0, 1.0), "");
  EXPECT_EQ(guard.judge(2, 1000.0, 1.0), "");
}

TEST(Guard, EndsTheRunWithItsOwnCode) {
  for (const auto& [loss, code] : {std::pair<double, ExitCode>(NAN, ExitCode::non_finite),
                                   std::pair<double, ExitCode>(50.0, ExitCode::no_progress)}) {
    Guard guard(kSpec);
    for (int step = 1; step <= 16; ++step) guard.judge(step, wobble(step), 1);
    EXPECT_NE(guard.judge(17, loss, 1), "");
    EXPECT_NE(guard.judge(18, loss, 1), "");
    try {
      guard.judge(19, loss, 1);
      FAIL() << "three skips in a row were accepted";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), code);
    }
  }
}

TEST(Guard, RestoredStateDecidesTheSame) {
  Guard guard(kSpec);
  for (int step = 1; step <= 30; ++step) guard.judge(step, wobble(step), wobble(step));
  Guard resumed(kSpec);
  resumed.restore(guard.state());
  for (const double loss : {2.0, 2.05, 2.08, 2.2}) {
    Guard a = guard;
    Guard b = resumed;
    EXPECT_EQ(a.judge(31, loss, 2.0), b.judge(31, loss, 2.0));
  }
}

}  // namespace
}  // namespace shoestring
