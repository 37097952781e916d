#include "core/generation/likelihood.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/base/check.h"
#include "tests/core/model/small_models.h"

namespace shoestring::testing {
namespace {

using Ids = std::vector<std::int32_t>;

class Likelihoods : public ::testing::Test {
 protected:
  /// ln p of each token of `text` but the first, and whether it was the likeliest; asked one by one, without a reader.
  std::vector<Likelihood> each(const Ids& text) {
    std::vector<Likelihood> found;
    for (std::size_t i = 1; i < text.size(); ++i) {
      CachedForward own(run_.model, {.slots = 1, .capacity = 64, .rows = 64});
      own.append(std::vector<CachedForward::Piece>{{0, std::span(text).first(i)}});
      const Ids last{static_cast<std::int32_t>(i) - 1};
      const std::vector<float> logits = own.logits(last).front();
      double sum = 0;
      for (const float logit : logits) sum += std::exp(double{logit});
      const auto target = static_cast<std::size_t>(text[i]);
      found.push_back(
          {double{logits[target]} - std::log(sum),
           static_cast<std::size_t>(std::max_element(logits.begin(), logits.end()) - logits.begin()) == target});
    }
    return found;
  }
  /// Of the last `count`, or of all.
  static Likelihood sum(const std::vector<Likelihood>& all, std::size_t count = 1000) {
    Likelihood result;
    for (std::size_t i = all.size() - std::min(count, all.size()); i < all.size(); ++i) result += all[i];
    return result;
  }
  CachedForward forward(std::int64_t rows, std::int64_t capacity = 32) {
    return CachedForward(run_.model, {.slots = 1, .capacity = capacity, .rows = rows});
  }
  static void expect_near(const Likelihood& found, const Likelihood& expected) {
    EXPECT_NEAR(found.log_probability, expected.log_probability, 1e-4);
    EXPECT_EQ(found.greedy, expected.greedy);
  }

  SmallRun run_{small_config(Architecture::qwen2), policy(PrecisionPolicy::fp32)};
  const Ids context_{3, 1, 4, 1, 5}, first_{9, 2}, second_{6};
};

TEST_F(Likelihoods, AreSumsOverTheContinuation) {
  Ids whole = context_;
  whole.insert(whole.end(), first_.begin(), first_.end());
  CachedForward own = forward(16);
  LikelihoodReader reader(own, 61);
  const std::vector<Likelihood> expected = each(whole);
  expect_near(reader.of(context_, first_), sum(expected, 2));
}

// The second choice reads its own token only; it and the first have the bits that they have alone, however few rows go
// together.
TEST_F(Likelihoods, WhatIsHeldChangesNothing) {
  CachedForward many = forward(16), few = forward(2);
  LikelihoodReader reader(many, 61), slow(few, 61);
  for (const Ids& continuation : {first_, second_, first_}) {
    CachedForward fresh = forward(16);
    const double expected = LikelihoodReader(fresh, 61).of(context_, continuation).log_probability;
    EXPECT_EQ(reader.of(context_, continuation).log_probability, expected);
    EXPECT_EQ(slow.of(context_, continuation).log_probability, expected);
  }
  Ids other = context_;
  other[1] = 7;
  CachedForward fresh = forward(16);
  EXPECT_EQ(reader.of(other, first_).log_probability, LikelihoodReader(fresh, 61).of(other, first_).log_probability);
}

TEST_F(Likelihoods, GreedyIsAllOfTheLikeliest) {
  CachedForward own = forward(16);
  LikelihoodReader reader(own, 61);
  Ids text = context_;
  for (int i = 0; i < 3; ++i) {
    CachedForward fresh = forward(16);
    fresh.append(std::vector<CachedForward::Piece>{{0, text}});
    const Ids last{static_cast<std::int32_t>(text.size()) - 1};
    const std::vector<float> logits = fresh.logits(last).front();
    text.push_back(static_cast<std::int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin()));
  }
  Ids likeliest(text.end() - 3, text.end());
  EXPECT_TRUE(reader.of(context_, likeliest).greedy);
  likeliest[1] = (likeliest[1] + 1) % 61;
  EXPECT_FALSE(reader.of(context_, likeliest).greedy);
}

TEST_F(Likelihoods, ALongContextLosesItsBeginning) {
  CachedForward own = forward(16, 4);
  LikelihoodReader reader(own, 61);
  const Ids seen{4, 1, 5, 9, 2};  // 4 places, and a last token that is only predicted
  expect_near(reader.of(context_, first_), sum(each(seen), 2));
  EXPECT_THROW(reader.of(context_, Ids(5, 1)), Error);
}

// Windows of four: 0 1 2 3 | 4 5 6 7 | 8 9, each token predicted once, the last two with the three before them.
TEST_F(Likelihoods, ALongTextIsReadInWindows) {
  const Ids text{3, 1, 4, 1, 5, 9, 2, 6, 5, 8};
  CachedForward own = forward(16, 4);
  LikelihoodReader reader(own, 61);
  Likelihood expected = sum(each({7, 3, 1, 4, 1}));
  expected += sum(each({1, 5, 9, 2, 6}), 4);
  expected += sum(each({9, 2, 6, 5, 8}), 2);
  expect_near(reader.of_text(7, text), expected);
  CachedForward roomy = forward(3);
  Ids behind_prefix{7};
  behind_prefix.insert(behind_prefix.end(), text.begin(), text.end());
  expect_near(LikelihoodReader(roomy, 61).of_text(7, text), sum(each(behind_prefix)));
}

}  // namespace
}  // namespace shoestring::testing
