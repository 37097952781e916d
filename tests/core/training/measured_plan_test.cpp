// What a trial may take. That it is charged, on one rank and on two: tests/tools/plan_test.cpp, mpirun_test.cpp.
#include "core/training/measured_plan.h"

#include <gtest/gtest.h>

#include <limits>

namespace shoestring {
namespace {

TEST(MeasuredPlan, ATrialTakesLittleOfTheCapAndTwoMinutesAtMost) {
  constexpr double kUnlimited = std::numeric_limits<double>::infinity();
  Recipe recipe;
  recipe.phases.resize(2);
  const Cap none{kUnlimited, "", kUnlimited};
  EXPECT_DOUBLE_EQ(trial_seconds(recipe, none, 1, 10), 5);
  EXPECT_DOUBLE_EQ(trial_seconds(recipe, none, 1, 1e6), 60);
  const Cap hour{1, "budget.gpu_hours", kUnlimited};
  EXPECT_DOUBLE_EQ(trial_seconds(recipe, hour, 1, 100), 9);
  EXPECT_DOUBLE_EQ(trial_seconds(recipe, hour, 4, 100), 2.25);
}

}  // namespace
}  // namespace shoestring
