#include "core/budget/warning.h"

#include <gtest/gtest.h>

#include <chrono>
#include <csignal>
#include <thread>

#include "kernels/base/check.h"
#include "tests/support/temporary_folder.h"

namespace shoestring {
namespace {

const Cap kCap = {10, "budget.usd", 1};

TEST(Warning, SharesAreReadInAnyOrder) {
  BudgetSpec budget;
  EXPECT_EQ(warn_shares(budget), (std::vector<double>{0.5, 0.8, 0.95}));
  budget.warn_at = {"80%", "0.25"};
  EXPECT_EQ(warn_shares(budget), (std::vector<double>{0.25, 0.8}));
  budget.warn_at = {"none"};
  EXPECT_TRUE(warn_shares(budget).empty());
  for (const char* wrong : {"0%", "120%", "-5%", "half", "none"}) {
    budget.warn_at = {"50%", wrong};
    EXPECT_THROW(warn_shares(budget), Error) << wrong;
  }
}

TEST(Warning, EachShareIsToldOnceAndTheHighestOfSeveral) {
  CapWarnings warnings({0.5, 0.8, 0.95}, kCap, 0, "");
  EXPECT_FALSE(warnings.passed("r", {4.9, 9.8, 0}));
  const auto told = warnings.passed("r", {5, 10, 0});
  ASSERT_TRUE(told);
  EXPECT_EQ(told->line, "50% of the cap is spent: 5 of 10 GPU-hours (budget.usd), $10");
  EXPECT_FALSE(warnings.passed("r", {6, 12, 0}));
  EXPECT_EQ(warnings.passed("r", {9.6, 0, 0})->line, "95% of the cap is spent: 9.6 of 10 GPU-hours (budget.usd)");
  EXPECT_FALSE(warnings.passed("r", {10, 0, 0}));
}

TEST(Warning, WhatAnEarlierAttemptPassedIsNotToldAgain) {
  CapWarnings warnings({0.5, 0.8}, kCap, 6, "");
  EXPECT_FALSE(warnings.passed("r", {7, 0, 0}));
  EXPECT_TRUE(warnings.passed("r", {8, 0, 0}));
}

TEST(Warning, NoCapIsNeverPassed) {
  CapWarnings warnings({0.5}, {std::numeric_limits<double>::infinity(), "", 1}, 0, "");
  EXPECT_FALSE(warnings.passed("r", {1e9, 0, 0}));
}

TEST(Warning, TheCommandHearsWhatWasSpent) {
  testing::TemporaryFolder folder;
  const std::filesystem::path file = folder / "told";
  CapWarnings warnings(
      {0.5}, kCap, 0,
      "echo \"$SHOESTRING_RUN $SHOESTRING_SHARE $SHOESTRING_SPENT_GPU_HOURS $SHOESTRING_SPENT_USD\" >" + file.string() +
          ".new && mv " + file.string() + ".new " + file.string());
  const auto told = warnings.passed("it's; mine", {5, 2.5, 0});
  ASSERT_TRUE(told);
  EXPECT_EQ(told->command_error, "");
  for (int wait = 0; wait < 1000 && !std::filesystem::exists(file); ++wait) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  EXPECT_EQ(testing::read_text(file), "it's; mine 0.5 5 2.5\n");
}

// A run ignores SIGPIPE; a shell's tools end by it.
TEST(Warning, TheCommandHearsSignalsAsAnyOther) {
  testing::TemporaryFolder folder;
  const std::string file = (folder / "told").string();
  const auto before = std::signal(SIGPIPE, SIG_IGN);
  CapWarnings warnings({0.5}, kCap, 0,
                       "sh -c 'kill -PIPE $$; echo deaf' >" + file + ".new; mv " + file + ".new " + file);
  EXPECT_EQ(warnings.passed("r", {5, 0, 0})->command_error, "");
  std::signal(SIGPIPE, before);
  for (int wait = 0; wait < 1000 && !std::filesystem::exists(file); ++wait) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  EXPECT_TRUE(std::filesystem::exists(file));
  EXPECT_EQ(testing::read_text(file), "");
}

}  // namespace
}  // namespace shoestring
