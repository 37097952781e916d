#include "core/training/stop_agreement.h"

#include <gtest/gtest.h>

#include <vector>

#include "tests/core/budget/hand_clock.h"
#include "tests/support/ranks.h"

namespace shoestring {
namespace {

using testing::HandClock;
using testing::run_ranks;

constexpr int kTurns = 100;

thread_local bool asked = false;  // ranks are threads
bool is_asked() { return asked; }

/// The turn at which each of three ranks leaves (kTurns: none), where a turn of `rank` takes (1 + rank) * seconds and
/// rank 2 alone is asked before turn `at`. A step of turns as long has gone before.
std::vector<int> leaves(double seconds, int at) {
  std::vector<int> left(3, -1);
  run_ranks(3, [&](Communicator& world) {
    asked = false;
    HandClock clock;
    StopAgreement stop(world, clock, is_asked);
    const auto take_turns = [&](int ask_at) {
      stop.begin();
      for (int turn = 0; turn < kTurns; ++turn) {
        if (world.rank() == 2 && turn == ask_at) asked = true;
        if (stop.leave()) return turn;
        clock.now += seconds * (1 + world.rank());
      }
      return kTurns;
    };
    EXPECT_EQ(take_turns(-1), kTurns);
    clock.now += 1000;  // what passes between steps is no turn
    left[static_cast<std::size_t>(world.rank())] = take_turns(at);
  });
  return left;
}

TEST(StopAgreement, LongTurnsEndAtTheNext) {
  for (const int at : {0, 1, 7}) EXPECT_EQ(leaves(3, at), std::vector<int>(3, at)) << at;
}

// The slowest rank's turns take 0.3 s: ranks meet at turns 0, 6, 12 ...
TEST(StopAgreement, ShortTurnsEndWithinTwoSeconds) {
  EXPECT_EQ(leaves(0.1, 0), std::vector<int>(3, 0));
  EXPECT_EQ(leaves(0.1, 1), std::vector<int>(3, 6));
  EXPECT_EQ(leaves(0.1, 6), std::vector<int>(3, 6));
  EXPECT_EQ(leaves(0.1, 7), std::vector<int>(3, 12));
}

// Turns of milliseconds: nobody meets in the middle of a step, and the next step tells.
TEST(StopAgreement, StepsThatAreShortAreTakenToTheirEnd) {
  EXPECT_EQ(leaves(0.001, 1), std::vector<int>(3, kTurns));
  EXPECT_EQ(leaves(0.001, 0), std::vector<int>(3, 0));
}

TEST(StopAgreement, ARankByItselfLeavesAtOnce) {
  run_ranks(1, [](Communicator& world) {
    asked = false;
    HandClock clock;
    StopAgreement stop(world, clock, is_asked);
    stop.begin();
    EXPECT_FALSE(stop.leave());
    asked = true;
    EXPECT_TRUE(stop.leave());
  });
}

}  // namespace
}  // namespace shoestring
