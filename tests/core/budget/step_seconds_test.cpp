#include "core/budget/step_seconds.h"

#include <gtest/gtest.h>

namespace shoestring {
namespace {

StepSeconds steps_of(int count, double seconds) {
  StepSeconds steps;
  for (int i = 0; i < count; ++i) steps.add(seconds, 10);
  return steps;
}

TEST(StepSeconds, MedianIgnoresOutliers) {
  StepSeconds steps;
  EXPECT_FALSE(steps.measured());
  EXPECT_EQ(steps.typical(), 0);
  for (int i = 0; i < 100; ++i) steps.add(i == 50 ? 90.0 : 0.5, 10);
  EXPECT_EQ(steps.typical(), 0.5);
  EXPECT_EQ(steps.slow(), 0.5);
  EXPECT_EQ(steps.slowdown(), 1);
}

TEST(StepSeconds, TheFirstStepCountsOnlyWhileItIsAlone) {
  StepSeconds steps;
  steps.add(60, 10);
  EXPECT_TRUE(steps.measured());
  EXPECT_FALSE(steps.settled());
  EXPECT_EQ(steps.expected_within(120, 0), 2);
  steps.add(2, 10);
  steps.add(4, 10);
  EXPECT_TRUE(steps.settled());
  EXPECT_DOUBLE_EQ(steps.expected_within(120, 0), 40);
  EXPECT_DOUBLE_EQ(steps.slow_stretch(), 1.25 * 3) << "no stretch of eight yet";
}

// A change of pace is believed after a few steps, the sooner the fewer there are left.
TEST(StepSeconds, FollowsThePresentPace) {
  StepSeconds steps = steps_of(4000, 1);
  for (int i = 0; i < 4; ++i) steps.add(2, 10);
  EXPECT_DOUBLE_EQ(steps.expected_within(1000, 0), 1000 / 1.25);
  EXPECT_DOUBLE_EQ(steps.expected_within(10, 0), 5);
  for (int i = 0; i < 12; ++i) steps.add(2, 10);
  EXPECT_DOUBLE_EQ(steps.expected_within(1000, 0), 500);
}

TEST(StepSeconds, ASlowStretchIsRemembered) {
  StepSeconds steps = steps_of(33, 1);
  EXPECT_DOUBLE_EQ(steps.slow_stretch(), 1.25);
  for (int i = 0; i < 64; ++i) steps.add(2, 10);
  for (int i = 0; i < 320; ++i) steps.add(1, 10);
  EXPECT_DOUBLE_EQ(steps.slow_stretch(), 2) << "64 of the last 416";
  for (int i = 0; i < 512; ++i) steps.add(1, 10);
  EXPECT_NEAR(steps.slow_stretch(), 1.25, 1e-6) << "forgotten";
  for (int i = 0; i < 8; ++i) steps.add(3, 10);
  EXPECT_DOUBLE_EQ(steps.slow_stretch(), 3) << "it is slow now";
}

TEST(StepSeconds, UnevennessIsOfStretchesNotOfSteps) {
  StepSeconds steps = steps_of(1, 1);
  for (int i = 0; i < 64; ++i) steps.add(i % 2 == 0 ? 1 : 3, 10);
  EXPECT_DOUBLE_EQ(steps.unevenness(), 1);
  for (int i = 0; i < 64; ++i) steps.add(4, 10);
  EXPECT_DOUBLE_EQ(steps.unevenness(), 2);
}

TEST(StepSeconds, ReliesOnFewerStepsThanItExpects) {
  const StepSeconds steps = steps_of(100, 0.5);
  EXPECT_DOUBLE_EQ(steps.expected_within(100, 0), 200);
  EXPECT_DOUBLE_EQ(steps.expected_within(100, 0.5), 100);
  EXPECT_DOUBLE_EQ(steps.surely_within(100, 0), 10 + (100 - 10 * 0.625) / 0.5);
  EXPECT_DOUBLE_EQ(steps.surely_within(10, 0), 3 + (10 - 3 * 0.625) / 0.5);
  EXPECT_DOUBLE_EQ(steps.surely_within(1, 0), 1 / 0.625);
}

}  // namespace
}  // namespace shoestring
