#include "core/generation/sampler.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>
#include <vector>

#include "kernels/base/check.h"
#include "kernels/base/random.h"

namespace shoestring {
namespace {

std::vector<float> logits_of(const std::vector<double>& probabilities) {
  std::vector<float> logits;
  for (const double p : probabilities) logits.push_back(static_cast<float>(std::log(p) + 3.0));
  return logits;
}

const std::vector<float> kFour = logits_of({0.1, 0.4, 0.2, 0.3});

/// id -> probability.
std::map<std::int32_t, double> distribution(const std::vector<float>& logits, const SamplingSettings& settings) {
  std::map<std::int32_t, double> found;
  for (const Candidate& candidate : candidates(logits, settings)) found[candidate.id] = candidate.probability;
  return found;
}

void expect_near(const std::map<std::int32_t, double>& found, const std::map<std::int32_t, double>& expected) {
  ASSERT_EQ(found.size(), expected.size());
  for (const auto& [id, probability] : expected) {
    ASSERT_TRUE(found.contains(id)) << id;
    EXPECT_NEAR(found.at(id), probability, 1e-6) << id;
  }
}

TEST(Sampler, ProbabilitiesAreTheSoftmaxAtTheTemperature) {
  expect_near(distribution(kFour, {}), {{0, 0.1}, {1, 0.4}, {2, 0.2}, {3, 0.3}});
  expect_near(distribution(kFour, {.temperature = 0.5}), {{0, 1.0 / 30}, {1, 16.0 / 30}, {2, 4.0 / 30}, {3, 9.0 / 30}});
}

TEST(Sampler, TopKKeepsTheLikeliest) {
  expect_near(distribution(kFour, {.top_k = 2}), {{1, 4.0 / 7}, {3, 3.0 / 7}});
  expect_near(distribution(kFour, {.top_k = 4}), distribution(kFour, {}));
  expect_near(distribution(kFour, {.top_k = 1000}), distribution(kFour, {}));
  expect_near(distribution(kFour, {.top_k = 1}), {{1, 1.0}});
}

TEST(Sampler, TopPKeepsTheFewestThatReachTheShare) {
  expect_near(distribution(kFour, {.top_p = 0.69}), {{1, 4.0 / 7}, {3, 3.0 / 7}});
  expect_near(distribution(kFour, {.top_p = 0.71}), {{1, 4.0 / 9}, {3, 3.0 / 9}, {2, 2.0 / 9}});
  expect_near(distribution(kFour, {.top_p = 1e-9}), {{1, 1.0}});
}

TEST(Sampler, MinPIsRelativeToTheLikeliest) {
  expect_near(distribution(kFour, {.min_p = 0.49}), {{1, 4.0 / 9}, {3, 3.0 / 9}, {2, 2.0 / 9}});
  expect_near(distribution(kFour, {.min_p = 0.51}), {{1, 4.0 / 7}, {3, 3.0 / 7}});
  expect_near(distribution(kFour, {.min_p = 1}), {{1, 1.0}});
}

// Each cut is made among what the one before has left: of the three likeliest, two have 7/9 of the share; of all, 7/10.
TEST(Sampler, CutsFollowEachOther) {
  expect_near(distribution(kFour, {.top_p = 0.75}), {{1, 4.0 / 9}, {3, 3.0 / 9}, {2, 2.0 / 9}});
  expect_near(distribution(kFour, {.top_k = 3, .top_p = 0.75}), {{1, 4.0 / 7}, {3, 3.0 / 7}});
  expect_near(distribution(kFour, {.top_k = 3, .top_p = 0.75, .min_p = 0.8}), {{1, 1.0}});
}

TEST(Sampler, TiesGoToTheLowerId) {
  const std::vector<float> even(1000, 2.0f);
  EXPECT_EQ(candidates(even, {.temperature = 0}).front().id, 0);
  const std::vector<Candidate> half = candidates(even, {.top_p = 0.4995});
  ASSERT_EQ(half.size(), 500u);  // more than are sorted at once
  for (std::size_t i = 0; i < half.size(); ++i) EXPECT_EQ(half[i].id, static_cast<std::int32_t>(i));
  EXPECT_EQ(candidates(even, {.top_k = 3}).back().id, 2);
}

TEST(Sampler, DrawsInProportion) {
  const std::vector<Candidate> all = candidates(kFour, {});
  std::map<std::int32_t, int> counts;
  for (int i = 0; i < 1000; ++i) ++counts[draw(all, (i + 0.5) / 1000)];
  EXPECT_EQ(counts, (std::map<std::int32_t, int>{{0, 100}, {1, 400}, {2, 200}, {3, 300}}));
  EXPECT_EQ(draw(all, 0), all.front().id);
  EXPECT_EQ(draw(all, std::nextafter(1.0, 0.0)), all.back().id);
}

// Pearson's statistic with three degrees of freedom stays below 16.3 with probability 0.999; the seeds are fixed. With
// two probabilities exchanged it is in the hundreds.
TEST(Sampler, SeedsAreIndependentDraws) {
  const std::vector<Candidate> all = candidates(kFour, {});
  constexpr int kDraws = 4000;
  std::map<std::int32_t, int> counts;
  for (std::uint64_t seed = 0; seed < kDraws; ++seed) ++counts[draw(all, Random(seed, Purpose::sampling).uniform(0))];
  const auto statistic = [&](const std::map<std::int32_t, double>& expected) {
    double sum = 0;
    for (const auto& [id, probability] : expected) {
      sum += std::pow(counts[id] - probability * kDraws, 2) / (probability * kDraws);
    }
    return sum;
  };
  EXPECT_LT(statistic({{0, 0.1}, {1, 0.4}, {2, 0.2}, {3, 0.3}}), 16.3);
  EXPECT_GT(statistic({{0, 0.2}, {1, 0.4}, {2, 0.1}, {3, 0.3}}), 100);
}

TEST(Sampler, SettingsOutOfRangeAreNamed) {
  const auto refused = [](const SamplingSettings& settings, const std::string& named) {
    try {
      check_sampling(settings);
      ADD_FAILURE() << named << " passed";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::usage);
      EXPECT_NE(std::string(error.what()).find(named), std::string::npos) << error.what();
    }
  };
  refused({.temperature = -0.1}, "temperature is -0.1");
  refused({.temperature = std::nan("")}, "temperature");
  refused({.top_k = -1}, "top_k is -1");
  refused({.top_p = 0}, "top_p is 0");
  refused({.top_p = 1.01}, "top_p is 1.01");
  refused({.min_p = -1}, "min_p is -1");
  refused({.min_p = 1.5}, "min_p is 1.5");
}

TEST(Sampler, LogitsThatAreNoNumbersEndIt) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  for (const float bad : {std::nanf(""), kInfinity}) {
    EXPECT_THROW(candidates(std::vector<float>{1, bad, 2}, {}), Error);
    EXPECT_THROW(candidates(std::vector<float>{1, bad, 2}, {.temperature = 0}), Error);
  }
  EXPECT_THROW(candidates(std::vector<float>{-kInfinity, -kInfinity}, {}), Error);
  expect_near(distribution({1, -kInfinity, 1}, {}), {{0, 0.5}, {2, 0.5}});
}

}  // namespace
}  // namespace shoestring
