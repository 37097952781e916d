#include "core/training/signals.h"

#include <gtest/gtest.h>

#include <array>
#include <csignal>

namespace shoestring {
namespace {

constexpr std::array kHandled = {SIGTERM, SIGHUP, SIGUSR1, SIGUSR2, SIGINT};

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
