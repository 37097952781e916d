#include "parallel/pace.h"

#include <gtest/gtest.h>

#include <limits>

namespace shoestring {
namespace {

constexpr double kUnlimited = std::numeric_limits<double>::infinity();

/// Turns until the wait counts as long, where each takes `turn`.
int turns_until_told(std::chrono::milliseconds turn) {
  PollPace pace(kUnlimited);
  int turns = 0;
  while (!pace.waits_long()) {
    std::this_thread::sleep_for(turn);
    EXPECT_TRUE(pace.next());
    ++turns;
  }
  return turns;
}

// On a machine that gives the core to others for milliseconds a turn.
TEST(Pace, AWaitIsLongByTheClock) { EXPECT_LE(turns_until_told(std::chrono::milliseconds(1)), 101); }

TEST(Pace, TellsOfALongWaitNowAndThen) {
  PollPace pace(kUnlimited);
  int told = 0;
  for (int i = 0; i < 100 || told == 0; ++i) pace.next(), told += pace.waits_long() ? 1 : 0;
  for (int i = 0; i < 128; ++i) pace.next(), told += pace.waits_long() ? 1 : 0;
  EXPECT_EQ(told, 3);
}

TEST(Pace, EndsAtItsLimit) {
  PollPace pace(0.001);
  const auto begin = std::chrono::steady_clock::now();
  while (pace.next()) {
  }
  EXPECT_GE(std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count(), 0.001);
}

}  // namespace
}  // namespace shoestring
