#include "core/budget/run_curve.h"

#include <gtest/gtest.h>

#include "tests/support/temporary_folder.h"

namespace shoestring {
namespace {

std::string line(int step, const std::string& more = "") {
  return "{\"step\":" + std::to_string(step) + ",\"tokens\":" + std::to_string(10 * step) +
         ",\"loss\":" + std::to_string(step) + ",\"gradient_norm\":1,\"learning_rate\":0.5" + more +
         ",\"timing\":{\"gpu_hours\":" + std::to_string(step) + ",\"tokens_per_second\":4}}\n";
}

TEST(RunCurve, StepsBetweenPointsAreTakenTogether) {
  testing::TemporaryFolder folder;
  std::string text;
  for (int step = 1; step <= 10; ++step) text += line(step);
  testing::write_text(folder / "m", text);
  EXPECT_EQ(read_curve(folder / "m").points.size(), 10u);
  const Curve curve = read_curve(folder / "m", 5);
  ASSERT_EQ(curve.points.size(), 5u);
  EXPECT_FALSE(curve.sampled);
  EXPECT_EQ(curve.points[4].step, 10);
  EXPECT_EQ(curve.points[4].tokens, 100);
  EXPECT_DOUBLE_EQ(curve.points[4].loss, 9.5);  // the mean of two
  EXPECT_DOUBLE_EQ(curve.points[4].gpu_hours, 10);
}

TEST(RunCurve, WhatCannotBeReadIsPassedOver) {
  testing::TemporaryFolder folder;
  EXPECT_TRUE(read_curve(folder / "absent").points.empty());
  EXPECT_TRUE(read_curve(folder.path()).points.empty());
  testing::write_text(folder / "m", line(1, ",\"quantisation\":{\"saturated.weight\":0.25,\"other\":\"x\"}") +
                                        "{broken\n[]\n{\"step\":2,\"evaluation\":{}}\n" +
                                        "{\"step\":3,\"loss\":\"nan\",\"timing\":{\"gpu_hours\":1}}\n" + line(4) +
                                        "{\"step\":5");
  const Curve curve = read_curve(folder / "m");
  ASSERT_EQ(curve.points.size(), 2u);
  EXPECT_EQ(curve.points[0].shares.at("saturated.weight"), 0.25);
  EXPECT_EQ(curve.points[0].shares.size(), 1u);
  EXPECT_EQ(curve.points[1].step, 4);
  const std::string unended = line(1) + line(2);
  testing::write_text(folder / "m", unended.substr(0, unended.size() - 1));
  EXPECT_EQ(read_curve(folder / "m").points.size(), 2u) << "whole, without its line feed";
}

TEST(RunCurve, ALongFileIsSampledOverItsWholeLength) {
  testing::TemporaryFolder folder;
  const std::string filler = ",\"filler\":\"" + std::string(900, 'x') + "\"";
  std::string text;
  for (int step = 1; step <= 10000; ++step) text += line(step, filler);
  ASSERT_GT(text.size(), std::size_t{8} << 20);
  testing::write_text(folder / "m", text);
  const Curve curve = read_curve(folder / "m", 100);
  EXPECT_TRUE(curve.sampled);
  ASSERT_EQ(curve.points.size(), 100u);
  for (std::size_t i = 0; i < 100; ++i)
    EXPECT_NEAR(static_cast<double>(curve.points[i].step), 100.0 * static_cast<double>(i + 1), 60);
}

}  // namespace
}  // namespace shoestring
