#include "core/training/signals.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <array>
#include <csignal>

namespace shoestring {
namespace {

constexpr std::array kHandled = {SIGTERM, SIGHUP, SIGUSR1, SIGUSR2, SIGXCPU, SIGINT};

/// The process gets its own handlers back.
class Signals : public testing::Test {
 protected:
  void SetUp() override {
    for (std::size_t i = 0; i < kHandled.size(); ++i) {
      sigaction(kHandled[i], nullptr, &before_[i]);
      std::signal(kHandled[i], SIG_DFL);
    }
    request_stop(false);
  }
  void TearDown() override {
    for (std::size_t i = 0; i < kHandled.size(); ++i) sigaction(kHandled[i], &before_[i], nullptr);
    request_stop(false);
  }

 private:
  std::array<struct sigaction, kHandled.size()> before_{};
};

TEST_F(Signals, EachAsksToSaveAndLeave) {
  install_signal_handlers();
  for (const int number : kHandled) {
    request_stop(false);
    ASSERT_EQ(std::raise(number), 0);
    EXPECT_TRUE(stop_requested()) << number;
  }
}

TEST_F(Signals, ASecondInterruptEndsAtOnce) {
  EXPECT_EXIT(
      {
        install_signal_handlers();
        std::raise(SIGTERM);  // has been asked already: the first Ctrl-C is still the first
        std::raise(SIGINT);
        std::raise(SIGINT);
      },
      testing::KilledBySignal(SIGINT), "again leaves at once");
}

TEST_F(Signals, AnInterruptIsAnsweredWithWhatIsDone) {
  EXPECT_EXIT(
      {
        install_signal_handlers("leaving");
        std::raise(SIGINT);
        std::_Exit(stop_requested() ? 0 : 1);
      },
      testing::ExitedWithCode(0), "^\nshoestring: leaving\n$");
}

/// The soft limit on CPU time that is left by one of `hard` seconds, with no soft one before it, in a process of its
/// own.
int soft_cpu_limit(rlim_t hard) {
  struct rlimit limit {
    hard, hard
  };
  setrlimit(RLIMIT_CPU, &limit);
  install_signal_handlers();
  getrlimit(RLIMIT_CPU, &limit);
  return limit.rlim_max == hard ? static_cast<int>(limit.rlim_cur) : 0;
}

TEST_F(Signals, TheHardLimitOnCpuTimeIsHeardOfBefore) {
  EXPECT_EXIT(std::_Exit(soft_cpu_limit(120)), testing::ExitedWithCode(60), "");
  EXPECT_EXIT(std::_Exit(soft_cpu_limit(180)), testing::ExitedWithCode(120), "");
  EXPECT_EXIT(std::_Exit(soft_cpu_limit(6000) / 100), testing::ExitedWithCode(54), "");
}

TEST_F(Signals, WhoUsedUpItsCpuTimeIsToldOnce) {
  EXPECT_EXIT(
      {
        install_signal_handlers();
        std::raise(SIGXCPU);
        std::raise(SIGXCPU);
        std::_Exit(stop_requested() ? 0 : 1);
      },
      testing::ExitedWithCode(0),
      "^\nshoestring: this process has used nearly all of its CPU time .*leaving before the "
      "system ends it\n$");
}

// nohup, and jobs that a script runs in the background.
TEST_F(Signals, WhatWasIgnoredStaysIgnored) {
  std::signal(SIGHUP, SIG_IGN);
  std::signal(SIGINT, SIG_IGN);
  install_signal_handlers();
  std::raise(SIGHUP);
  std::raise(SIGINT);
  EXPECT_FALSE(stop_requested());
}

}  // namespace
}  // namespace shoestring
