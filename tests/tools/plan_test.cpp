#include <gtest/gtest.h>

#include "tests/tools/program.h"

namespace shoestring {
namespace {

void expect_holds(const std::string& text, std::initializer_list<const char*> parts) {
  for (const char* part : parts) EXPECT_NE(text.find(part), std::string::npos) << part << " is missing in\n" << text;
}

// The figures that the technical report of DeepSeek-V3 gives, and what follows from them on an H800.
TEST(Plan, PrintsWhatDeepSeekV3IsAndCosts) {
  const testing::Workplace place;
  const std::string recipe = std::string(SHOESTRING_SOURCE_DIR) + "/recipes/deepseek_v3.recipe";
  const testing::Ended plan = place.run("plan " + recipe);
  EXPECT_EQ(plan.exit_code, 0);
  expect_holds(plan.output, {"671B total, 36.63B active", "260.6B per trained token in phase pretrain",
                             "250.4B without multi-token prediction", "2.788M GPU-hours (budget.gpu_hours), $5.576M"});
  expect_holds(plan.output, {"pretrain", "14.8T", "898K", "context_128k", "14.93T", "33.4% of the cap"});
}

TEST(Plan, SaysThatTheEndIsOutOfReach) {
  const testing::Workplace place;
  const std::string recipe = std::string(SHOESTRING_SOURCE_DIR) + "/recipes/deepseek_v3.recipe";
  const testing::Ended plan = place.run("plan " + recipe + " --budget.gpu_hours=0.5M");
  EXPECT_EQ(plan.exit_code, 0);
  expect_holds(plan.output, {"186.3% of the cap: this run cannot reach its end inside it"});
}

}  // namespace
}  // namespace shoestring
