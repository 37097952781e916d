#include "kernels/base/workers.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "kernels/base/check.h"
#include "tests/support/scarce_processes.h"

namespace shoestring {
namespace {

TEST(Workers, RunCallsEveryWorkerOnce) {
  for (const int count : {1, 2, 5}) {
    Workers workers(count);
    EXPECT_EQ(workers.count(), count);
    for (int round = 0; round < 200; ++round) {
      std::vector<std::atomic<int>> calls(static_cast<std::size_t>(count));
      workers.run([&](int worker) { ++calls[static_cast<std::size_t>(worker)]; });
      for (const auto& call : calls) ASSERT_EQ(call, 1);
    }
  }
  EXPECT_GE(Workers().count(), 1);
}

TEST(Workers, SplitCoversEveryItemOnceAtMultiplesOfTheGrain) {
  Workers workers(3);
  for (const std::int64_t items : {0, 1, 2, 3, 7, 64, 65, 1000}) {
    for (const std::int64_t grain : {1, 4, 64, 5000}) {
      std::vector<std::atomic<int>> seen(static_cast<std::size_t>(items));
      workers.split(items, grain, [&](std::int64_t begin, std::int64_t end) {
        EXPECT_EQ(begin % grain, 0);
        EXPECT_LT(begin, end);
        EXPECT_TRUE(end == items || end % grain == 0);
        for (std::int64_t i = begin; i < end; ++i) ++seen[static_cast<std::size_t>(i)];
      });
      for (const auto& count : seen) ASSERT_EQ(count, 1);
    }
  }
  EXPECT_THROW(workers.split(5, 0, [](std::int64_t, std::int64_t) {}), Error);
}

TEST(Workers, EachHandsOutUnevenItems) {
  Workers workers(3);
  std::vector<std::atomic<int>> seen(57);
  workers.each(57, [&](std::int64_t item) {
    if (item % 19 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    ++seen[static_cast<std::size_t>(item)];
  });
  for (const auto& count : seen) EXPECT_EQ(count, 1);
  workers.each(0, [](std::int64_t) { FAIL(); });
}

TEST(Workers, AnExceptionReachesTheCallerAndTheTeamLives) {
  for (const int thrower : {0, 2}) {
    Workers workers(3);
    EXPECT_THROW(workers.run([&](int worker) {
      if (worker == thrower) throw std::runtime_error("worker failed");
    }),
                 std::runtime_error);
    std::atomic<int> calls{0};
    workers.run([&](int) { ++calls; });
    EXPECT_EQ(calls, 3);
  }
}

TEST(Workers, LoopsDoNotNest) {
  for (const int count : {1, 2}) {
    Workers workers(count);
    EXPECT_THROW(workers.run([&](int) { workers.run([](int) {}); }), Error);
    std::atomic<int> calls{0};
    workers.run([&](int) { ++calls; });  // and the team lives
    EXPECT_EQ(calls, count);
  }
}

TEST(Workers, WakeAfterSleep) {
  Workers workers(2);
  for (int round = 0; round < 3; ++round) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));  // longer than idle workers spin
    std::atomic<int> calls{0};
    workers.run([&](int) { ++calls; });
    EXPECT_EQ(calls, 2);
  }
}

/// A maker of threads that refuses the n-th, and counts those it made that have not ended.
struct Scarce {
  int left = 0;
  std::atomic<int> alive{0};
  std::thread make(std::function<void()> body) {
    if (left-- == 0) throw std::system_error(std::make_error_code(std::errc::resource_unavailable_try_again));
    ++alive;
    return std::thread([this, body = std::move(body)] {
      body();
      --alive;
    });
  }
};

TEST(Workers, AThreadThatCannotBeMadeEndsThoseBegunAndNamesTheLimits) {
  for (int made = 0; made < 5; ++made) {
    Scarce scarce{.left = made};
    try {
      const Workers workers(6, [&](std::function<void()> body) { return scarce.make(std::move(body)); });
      FAIL() << "six workers of " << made + 1;
    } catch (const Error& error) {
      const std::string text = error.what();
      EXPECT_EQ(error.code(), ExitCode::io);
      EXPECT_NE(text.find("cannot make 6 worker threads"), std::string::npos) << text;
      EXPECT_NE(text.find("only " + std::to_string(made + 1)), std::string::npos) << text;
      for (const char* limit : {"ulimit -u", "pids.max", "run.threads"}) {
        EXPECT_NE(text.find(limit), std::string::npos) << text;
      }
    }
    EXPECT_EQ(scarce.alive, 0);
  }
  Scarce enough{.left = 5};
  Workers workers(6, [&](std::function<void()> body) { return enough.make(std::move(body)); });
  std::atomic<int> calls{0};
  workers.run([&](int) { ++calls; });
  EXPECT_EQ(calls, 6);
}

TEST(Workers, AUserWithoutProcessesLeftGetsAnErrorInsteadOfAHang) {
  const int code = testing::with_few_processes(3, [] {
    try {
      const Workers workers(16);
      return 1;
    } catch (const Error& error) {
      return static_cast<int>(error.code());
    }
  });
  EXPECT_EQ(code, static_cast<int>(ExitCode::io));
}

}  // namespace
}  // namespace shoestring
