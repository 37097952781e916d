// Watchdogs of several ranks in one process, whose turns the test takes by hand: a stopped rank is one that takes none.
#include "parallel/watchdog.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <functional>
#include <memory>
#include <system_error>
#include <thread>
#include <vector>

#include "tests/support/ranks.h"
#include "tests/support/temporary_folder.h"

namespace shoestring {
namespace {

constexpr double kTurn = 0.5;
constexpr WaitLimits kLimits = {.progress_seconds = 20, .sign_seconds = 10};

class WatchdogTest : public ::testing::Test {
 protected:
  struct Rank {
    VitalSigns signs;
    std::unique_ptr<Watchdog> watchdog;
    bool lives = true;
    bool was_asked = false;
    int heard_requests = 0;
    std::vector<Verdict> ended;
  };

  void begin(int ranks) {
    folder().clear();
    for (int rank = 0; rank < ranks; ++rank) {
      Rank& made = *ranks_.emplace_back(std::make_unique<Rank>());
      made.signs.enter("step 5", kLimits);
      made.watchdog =
          std::make_unique<Watchdog>(rank, made.signs,
                                     WatchSetting{.folder = folder_.path() / "ranks",
                                                  .turn_seconds = kTurn,
                                                  .grace = [] { return 5.0; },
                                                  .asked = [&made] { return made.was_asked; },
                                                  .hear = [&made] { ++made.heard_requests; },
                                                  .end = [&made](const Verdict& v) { made.ended.push_back(v); }});
    }
  }
  SignFolder folder() const { return SignFolder(folder_.path() / "ranks"); }
  Rank& rank(int number) { return *ranks_[static_cast<std::size_t>(number)]; }
  void waits(int number, int peer) {
    rank(number).signs.wait(peer, fmt::format("receiving all_reduce message 7 from rank {}", peer));
  }
  /// Everybody that lives takes its turns; `meanwhile` before each round.
  void pass(
      double seconds, const std::function<void()>& meanwhile = [] {}) {
    for (double at = 0; at < seconds; at += kTurn) {
      meanwhile();
      for (const auto& each : ranks_) {
        if (each->lives) each->watchdog->turn(kTurn);
      }
    }
  }
  std::optional<Verdict> verdict() const { return folder().verdict(); }
  void expect_culprit(int culprit, const std::vector<std::string>& words) {
    const std::optional<Verdict> found = verdict();
    ASSERT_TRUE(found.has_value());
    EXPECT_EQ(found->code, ExitCode::hang);
    EXPECT_EQ(found->culprit, culprit) << found->text;
    for (const std::string& word : words) EXPECT_NE(found->text.find(word), std::string::npos) << found->text;
  }

  testing::TemporaryFolder folder_;
  std::vector<std::unique_ptr<Rank>> ranks_;
};

TEST_F(WatchdogTest, WhoGetsOnIsLeftAlone) {
  begin(2);
  waits(0, 1);
  pass(200, [&] {
    for (const int each : {0, 1}) rank(each).signs.go_on();
    waits(0, 1);
  });
  EXPECT_FALSE(verdict());
}

TEST_F(WatchdogTest, AStoppedRankIsNamedWithinItsLimit) {
  begin(2);
  rank(1).signs.act({ActionKind::backward_input, 1, 3});
  pass(2 * kTurn);
  rank(1).lives = false;
  rank(0).signs.go_on();
  waits(0, 1);
  pass(9);
  EXPECT_FALSE(verdict());
  pass(2);
  expect_culprit(1, {"rank 1 (host ", fmt::format("process {}", getpid()), "has stopped", "step 5, B1.3",
                     "rank 0 (host ", "receiving all_reduce message 7 from rank 1"});
  EXPECT_THROW(rank(0).signs.obey(), Error);
  EXPECT_NO_THROW(rank(0).signs.obey());  // once: what follows may save
}

// All wait for rank 1, which waits for rank 2: only the last one is stopped.
TEST_F(WatchdogTest, TheEndOfTheChainIsNamed) {
  begin(4);
  for (const int waiting : {0, 3}) waits(waiting, 1);
  waits(1, 2);
  pass(kTurn);
  rank(2).lives = false;
  pass(11);
  expect_culprit(2, {"rank 2 (host ", "has stopped", "receiving all_reduce message 7 from rank 2"});
}

TEST_F(WatchdogTest, AStuckRankHasItsOwnLimit) {
  begin(2);
  rank(1).signs.enter("saving step 5", {.progress_seconds = 60, .sign_seconds = 10});
  waits(0, 1);
  pass(59);
  EXPECT_FALSE(verdict());
  pass(2);
  expect_culprit(1, {"rank 1 (host ", "is stuck", "saving step 5"});
}

// Its last sign is of what all were at before: it may have left that.
TEST_F(WatchdogTest, WhatAStoppedRankWasAtBeforeDoesNotCount) {
  begin(2);
  rank(1).signs.enter("saving step 4", {.progress_seconds = 600, .sign_seconds = 30});
  pass(kTurn);
  rank(1).lives = false;
  waits(0, 1);
  pass(12);
  expect_culprit(1, {"has stopped"});
}

TEST_F(WatchdogTest, ALongerLimitOfItsOwnIsLongerForAStoppedRankToo) {
  begin(2);
  rank(1).signs.enter("the account of step 5", {.progress_seconds = 600, .sign_seconds = 30, .alone = true});
  pass(kTurn);
  rank(1).lives = false;
  waits(0, 1);
  pass(28);
  EXPECT_FALSE(verdict());
  pass(4);
  expect_culprit(1, {"has stopped"});
}

TEST_F(WatchdogTest, RanksThatWaitForEachOther) {
  begin(3);
  waits(0, 1);
  waits(1, 2);
  waits(2, 1);
  pass(11);
  const std::optional<Verdict> found = verdict();
  ASSERT_TRUE(found.has_value());
  EXPECT_NE(found->text.find("wait for each other"), std::string::npos) << found->text;
  EXPECT_NE(found->culprit, 0) << found->text;
}

TEST_F(WatchdogTest, ARankWithoutASign) {
  begin(2);
  rank(1).lives = false;
  folder().remove(1);
  waits(0, 1);
  pass(12);
  expect_culprit(1, {"rank 1 left no sign of life"});
}

TEST_F(WatchdogTest, TimeThatTheMachineSleptDoesNotCount) {
  begin(2);
  waits(0, 1);
  for (int turn = 0; turn < 9; ++turn) {
    for (const auto& each : ranks_) each->watchdog->turn(1e6);  // 1 s each, at most
  }
  EXPECT_FALSE(verdict());
}

TEST_F(WatchdogTest, AnErrorOfOneRankReachesAll) {
  begin(3);
  EXPECT_TRUE(rank(1).watchdog->report(ExitCode::bad_data, "shards/train: block 7 is damaged"));
  EXPECT_FALSE(rank(2).watchdog->report(ExitCode::io, "a second one"));  // the first one stands
  pass(kTurn);
  for (const int other : {0, 2}) {
    try {
      rank(other).signs.act({});
      ADD_FAILURE() << "rank " << other << " goes on";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::bad_data);
      EXPECT_NE(std::string(error.what()).find("rank 1 (host "), std::string::npos) << error.what();
      EXPECT_NE(std::string(error.what()).find("block 7 is damaged"), std::string::npos) << error.what();
    }
  }
}

TEST_F(WatchdogTest, AThreadThatCannotBeMadeIsToldWithTheLimits) {
  begin(1);
  const auto refuse = [](const std::function<void()>&) -> std::thread {
    throw std::system_error(EAGAIN, std::generic_category());
  };
  try {
    rank(0).watchdog->start(refuse);
    ADD_FAILURE() << "it went on unwatched";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::io);
    EXPECT_NE(std::string(error.what()).find("the thread that watches rank 0"), std::string::npos) << error.what();
    EXPECT_NE(std::string(error.what()).find("ulimit -u"), std::string::npos) << error.what();
  }
}

// The training thread hears nothing; another one that hears is not ended.
TEST_F(WatchdogTest, WhoDoesNotHearIsEnded) {
  begin(2);
  waits(0, 1);
  waits(1, 0);
  pass(11);
  ASSERT_TRUE(verdict());
  EXPECT_THROW(rank(0).signs.obey(), Error);
  EXPECT_TRUE(rank(1).ended.empty());
  pass(30);
  EXPECT_TRUE(rank(0).ended.empty());
  ASSERT_EQ(rank(1).ended.size(), 1u);
  EXPECT_EQ(rank(1).ended[0], *verdict());
}

TEST_F(WatchdogTest, ARequestToLeaveReachesAll) {
  begin(3);
  pass(1);
  rank(2).was_asked = true;
  pass(1);
  EXPECT_EQ(rank(0).heard_requests, 1);
  EXPECT_EQ(rank(1).heard_requests, 1);
  EXPECT_EQ(rank(2).heard_requests, 0);
}

TEST_F(WatchdogTest, TheLastOneTakesTheFolderAway) {
  begin(2);
  rank(2 - 1).watchdog.reset();
  EXPECT_TRUE(std::filesystem::exists(folder_.path() / "ranks"));
  rank(0).watchdog.reset();
  EXPECT_FALSE(std::filesystem::exists(folder_.path() / "ranks"));
}

// Whom a rank of a split waits for is told by its number in the world.
TEST(Watched, WaitsAreToldByRanksOfTheWorld) {
  std::vector<VitalSigns> signs(3);
  testing::run_ranks(3, [&](Communicator& world) {
    VitalSigns& own = signs[static_cast<std::size_t>(world.rank())];
    const Watched watched(world, own);
    const auto pair = world.split(world.rank() == 0 ? 1 : 0, -world.rank(), "pair");  // 2 first, then 1
    own.watch();
    double value = 0;
    if (world.rank() == 1) {
      while (signs[2].read().waits_for < 0) std::this_thread::yield();
      EXPECT_EQ(signs[2].read().waits_for, 1);
      EXPECT_NE(signs[2].read().doing.find("send/recv message 1, 8 bytes of f64, of world/pair:0 from rank 1"),
                std::string::npos)
          << signs[2].read().doing;
      pair->send(view_of(&value, DType::f64, {1}), 0);
    } else if (world.rank() == 2) {
      const std::int64_t before = own.read().progress;
      pair->recv(view_of(&value, DType::f64, {1}), 1);
      EXPECT_GT(own.read().progress, before);
      EXPECT_EQ(own.read().waits_for, -1);
    }
  });
}

// A rank that is condemned while it waits leaves with the verdict, before any timeout.
TEST(Watched, TheVerdictIsThrownOutOfTheWait) {
  const Verdict verdict{.code = ExitCode::non_finite, .culprit = 1, .author = 1, .text = "rank 1 failed"};
  testing::run_ranks(2, [&](Communicator& world) {
    VitalSigns own;
    const Watched watched(world, own);
    own.watch();
    if (world.rank() == 0) {
      own.condemn(verdict);
      try {
        world.barrier();
        ADD_FAILURE() << "the barrier was passed";
      } catch (const Error& error) {
        EXPECT_EQ(error.code(), ExitCode::non_finite);
      }
    }
  });
}

}  // namespace
}  // namespace shoestring
