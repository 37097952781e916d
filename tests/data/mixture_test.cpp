#include "data/mixture.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "tests/data/shard_fixture.h"

namespace shoestring {
namespace {

using testing::error_of;

TEST(Mixture, CountsAndIndicesAgreeWithWalkingThrough) {
  for (const auto& weights :
       {std::vector<double>{1.0}, {0.5, 0.5}, {0.7, 0.2, 0.1}, {1, 1000}, {3, 1, 4, 1, 5, 9, 2, 6}}) {
    const Mixture mixture(weights, 11);
    std::vector<std::int64_t> seen(weights.size(), 0);
    for (std::int64_t sample = 0; sample < 5000; ++sample) {
      const MixtureDraw draw = mixture.draw(sample);
      ASSERT_EQ(draw.index, seen[static_cast<std::size_t>(draw.source)]++);
    }
    for (std::size_t source = 0; source < weights.size(); ++source) {
      EXPECT_EQ(mixture.count(static_cast<int>(source), 5000), seen[source]);
    }
  }
}

TEST(Mixture, RangesAreTheSameAsSingleDraws) {
  const Mixture mixture({5, 3, 2}, 4);
  for (const std::int64_t first :
       {std::int64_t{0}, std::int64_t{77}, std::int64_t{1} << 31, (std::int64_t{1} << 32) - 7, std::int64_t{1} << 40}) {
    std::vector<MixtureDraw> draws(20);
    mixture.draw(first, draws);
    for (std::size_t at = 0; at < draws.size(); ++at) {
      const MixtureDraw one = mixture.draw(first + static_cast<std::int64_t>(at));
      EXPECT_EQ(draws[at].source, one.source);
      EXPECT_EQ(draws[at].index, one.index);
    }
  }
}

TEST(Mixture, FarCountsStepByOne) {
  const Mixture mixture({0.61, 0.39}, 9);
  for (const std::int64_t at : {(std::int64_t{1} << 32) - 3, (std::int64_t{1} << 32), std::int64_t{123456789012}}) {
    for (std::int64_t sample = at; sample < at + 6; ++sample) {
      const MixtureDraw draw = mixture.draw(sample);
      for (int source = 0; source < 2; ++source) {
        EXPECT_EQ(mixture.count(source, sample + 1) - mixture.count(source, sample), draw.source == source ? 1 : 0);
      }
      EXPECT_EQ(mixture.count(0, sample) + mixture.count(1, sample), sample);
    }
  }
}

TEST(Mixture, EveryPrefixHoldsTheShares) {
  const std::vector<double> weights{0.55, 0.3, 0.1, 0.05};
  const Mixture mixture(weights, 2);
  double worst = 0;
  for (std::int64_t samples = 1; samples < 200000; samples += 37) {
    for (int source = 0; source < 4; ++source) {
      const double expected = weights[static_cast<std::size_t>(source)] * static_cast<double>(samples);
      worst = std::max(worst, std::abs(static_cast<double>(mixture.count(source, samples)) - expected));
    }
  }
  EXPECT_LT(worst, 4.0);  // random draws would be off by hundreds
}

TEST(Mixture, RefusesWeightsThatMeanNothing) {
  for (const auto& weights : {std::vector<double>{}, {1, 0}, {1, -1}, {1, NAN}, {1, 1e-12}}) {
    EXPECT_EQ(error_of([&] { Mixture(weights, 1); }).code(), ExitCode::usage);
  }
}

}  // namespace
}  // namespace shoestring
