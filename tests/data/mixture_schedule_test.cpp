#include "data/mixture_schedule.h"

#include <gtest/gtest.h>

#include <cmath>

#include "kernels/base/check.h"

namespace shoestring {
namespace {

using Counts = std::vector<std::int64_t>;
constexpr std::int64_t kNone = MixtureSchedule::kNoLimit;

// Draws every sample, and holds each against what has been drawn before it.
Counts drawn(const MixtureSchedule& schedule, std::int64_t samples) {
  Counts counts(static_cast<std::size_t>(schedule.sources()));
  for (std::int64_t i = 0; i < samples; ++i) {
    for (int source = 0; source < schedule.sources(); ++source) {
      if (schedule.count(source, i) != counts[static_cast<std::size_t>(source)]) {
        ADD_FAILURE() << "source " << source << " before sample " << i;
        return counts;
      }
    }
    const MixtureDraw draw = schedule.draw(i);
    if (draw.index != counts.at(static_cast<std::size_t>(draw.source))++) {
      ADD_FAILURE() << "a sample of source " << draw.source << " is skipped or repeated at " << i;
      return counts;
    }
  }
  return counts;
}

TEST(MixtureSchedule, OfOnePointIsTheMixture) {
  const std::vector<double> weights = {0.7, 0.2, 0.1};
  const MixtureSchedule schedule({{0, weights}}, {}, 5);
  const Mixture mixture(weights, 5);
  for (const std::int64_t i : {std::int64_t{0}, std::int64_t{1}, std::int64_t{999}, std::int64_t{1} << 40}) {
    EXPECT_EQ(schedule.draw(i).source, mixture.draw(i).source);
    EXPECT_EQ(schedule.draw(i).index, mixture.draw(i).index);
  }
  EXPECT_EQ(schedule.samples(), kNone);
}

TEST(MixtureSchedule, ChangesWhereThePointsSay) {
  const MixtureSchedule schedule({{0, {1, 1}}, {100, {1, 0}}, {150, {0.25, 0.75}}}, {}, 3);
  const Counts counts = drawn(schedule, 350);
  EXPECT_NEAR(static_cast<double>(schedule.count(1, 100)), 50, 2);
  EXPECT_EQ(schedule.count(1, 150), schedule.count(1, 100)) << "a source of weight 0";
  EXPECT_NEAR(static_cast<double>(counts[1] - schedule.count(1, 150)), 150, 2);
}

// What a source may not give any more the others give, and nobody is ever asked for a sample too many.
TEST(MixtureSchedule, KeepsLimitsExactly) {
  const MixtureSchedule schedule({{0, {0.5, 0.3, 0.2}}, {200, {0.1, 0.1, 0.8}}}, {60, kNone, 90}, 11);
  EXPECT_EQ(drawn(schedule, 1000), (Counts{60, 850, 90}));
  EXPECT_EQ(schedule.samples(), kNone);
}

TEST(MixtureSchedule, EndsWhenAllHaveGivenWhatTheyMay) {
  const MixtureSchedule schedule({{0, {0.5, 0.5}}}, {30, 50}, 7);
  EXPECT_EQ(schedule.samples(), 80);
  EXPECT_EQ(drawn(schedule, 80), (Counts{30, 50}));
  EXPECT_EQ(schedule.count(1, 1000), 50);
  try {
    schedule.draw(80);
    FAIL() << "a sample of nobody";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::bad_data);
    EXPECT_NE(std::string(error.what()).find("80 samples"), std::string::npos) << error.what();
  }
}

// A block of samples is what its samples are one by one, across every border.
TEST(MixtureSchedule, DrawsBlocks) {
  const MixtureSchedule schedule({{0, {1, 2, 3}}, {37, {3, 2, 1}}, {38, {0, 1, 1}}}, {25, 40, kNone}, 2);
  for (const std::int64_t first : {0, 30, 37, 90}) {
    std::vector<MixtureDraw> block(80);
    schedule.draw(first, block);
    for (std::size_t i = 0; i < block.size(); ++i) {
      const MixtureDraw one = schedule.draw(first + static_cast<std::int64_t>(i));
      ASSERT_EQ(block[i].source, one.source);
      ASSERT_EQ(block[i].index, one.index);
    }
  }
}

TEST(MixtureSchedule, AnnealsInAStraightLine) {
  const std::vector<MixturePoint> points = annealed(0, 1000, {1, 0}, {0, 1}, 20);
  ASSERT_EQ(points.size(), 20u);
  EXPECT_EQ(points[1].first, 50);
  const MixtureSchedule schedule(points, {}, 1);
  EXPECT_NEAR(static_cast<double>(schedule.count(1, 1000)), 500, 20);
  EXPECT_NEAR(static_cast<double>(schedule.count(1, 500)), 125, 12);
  EXPECT_EQ(annealed(0, 3, {1, 1}, {1, 2}, 8).size(), 3u) << "no more steps than samples";
}

TEST(MixtureSchedule, RefusesWeightsThatAreNone) {
  for (const std::vector<double>& weights :
       {std::vector<double>{}, {0, 0}, {1, -1}, {1, std::nan("")}, {1, std::numeric_limits<double>::infinity()}}) {
    EXPECT_THROW(MixtureSchedule({{0, weights}}, {}, 1), Error);
  }
}

}  // namespace
}  // namespace shoestring
