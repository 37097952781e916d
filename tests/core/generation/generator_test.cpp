#include "core/generation/generator.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "kernels/base/check.h"
#include "tests/core/model/small_models.h"

namespace shoestring::testing {
namespace {

using Ids = std::vector<std::int32_t>;

class Generation : public ::testing::Test {
 protected:
  CachedForward forward(std::int64_t slots, std::int64_t rows = 16, std::int64_t capacity = 40) {
    return CachedForward(run_.model, {.slots = slots, .capacity = capacity, .rows = rows});
  }
  std::vector<Generated> texts(const std::vector<GenerationRequest>& requests, std::int64_t slots,
                               std::int64_t rows = 16) {
    CachedForward own = forward(slots, rows);
    return Generator(own, kVocabulary).run(requests, [](std::size_t, std::int32_t) { return true; });
  }
  Generated text(const GenerationRequest& request) { return texts({request}, 1).front(); }

  static constexpr std::int64_t kVocabulary = 59;  // the model has two logits more
  SmallRun run_{small_config(Architecture::qwen3_moe), policy(PrecisionPolicy::fp32)};
  GenerationRequest greedy_{.prompt = {3, 1, 4}, .most_tokens = 8, .sampling = {.temperature = 0}};
};

void expect_same(const Generated& a, const Generated& b) {
  EXPECT_EQ(a.ids, b.ids);
  EXPECT_EQ(a.log_probabilities, b.log_probabilities);
  EXPECT_EQ(a.end, b.end);
}

// Neither the others in the batch, nor how many go together, nor how prompts are cut.
TEST_F(Generation, ATextIsItsOwnWhateverStandsBesideIt) {
  std::vector<GenerationRequest> requests;
  for (std::uint64_t i = 0; i < 6; ++i) {
    GenerationRequest request{.prompt = {}, .most_tokens = static_cast<std::int64_t>(4 * i % 9), .seed = i};
    for (std::uint64_t t = 0; t <= 3 * i; ++t) request.prompt.push_back(static_cast<std::int32_t>((7 * t + i) % 59));
    requests.push_back(request);
  }
  std::vector<Generated> alone;
  for (const GenerationRequest& request : requests) alone.push_back(text(request));
  for (const auto& [slots, rows] : {std::pair{1, 2}, std::pair{2, 16}, std::pair{4, 5}, std::pair{8, 40}}) {
    const std::vector<Generated> together = texts(requests, slots, rows);
    ASSERT_EQ(together.size(), requests.size());
    for (std::size_t i = 0; i < requests.size(); ++i) expect_same(together[i], alone[i]);
  }
  EXPECT_TRUE(alone[0].ids.empty());  // asked for no token
  EXPECT_EQ(alone[3].ids.size(), 3u);
}

TEST_F(Generation, TheSeedDecides) {
  GenerationRequest request{.prompt = {3, 1, 4}, .most_tokens = 12, .seed = 5};
  const Generated first = text(request);
  expect_same(text(request), first);
  request.seed = 6;
  EXPECT_NE(text(request).ids, first.ids);
}

TEST_F(Generation, GreedyTakesTheLikeliestOfTheTokenizersTokens) {
  const Generated found = text(greedy_);
  Ids ids = greedy_.prompt;
  for (std::size_t i = 0; i < found.ids.size(); ++i) {
    CachedForward own = forward(1);
    own.append(std::vector<CachedForward::Piece>{{0, ids}});
    const Ids last{static_cast<std::int32_t>(ids.size()) - 1};
    const std::vector<float> logits = own.logits(last).front();
    const auto best = std::max_element(logits.begin(), logits.begin() + kVocabulary) - logits.begin();
    EXPECT_EQ(found.ids[i], best);
    double sum = 0;
    for (const float logit : logits) sum += std::exp(double{logit} - logits[static_cast<std::size_t>(best)]);
    EXPECT_NEAR(found.log_probabilities[i], -std::log(sum), 1e-5);
    ids.push_back(found.ids[i]);
  }
}

TEST_F(Generation, EndsAtAnyStopId) {
  const Generated whole = text(greedy_);
  ASSERT_EQ(whole.end, GenerationEnd::length);
  const Ids stops{58, whole.ids[4], 57};
  const auto first = std::find(whole.ids.begin(), whole.ids.end(), whole.ids[4]) - whole.ids.begin();
  GenerationRequest request = greedy_;
  request.stop_ids = stops;
  Ids told;
  CachedForward own = forward(1);
  const Generated cut = Generator(own, kVocabulary).run(std::vector{request}, [&](std::size_t, std::int32_t id) {
    told.push_back(id);
    return true;
  })[0];
  EXPECT_EQ(cut.end, GenerationEnd::stop_id);
  EXPECT_EQ(cut.ids, Ids(whole.ids.begin(), whole.ids.begin() + first + 1));
  EXPECT_EQ(told, Ids(whole.ids.begin(), whole.ids.begin() + first));
}

TEST_F(Generation, EndsWhereTheCallerSaysSoAndWhereRoomEnds) {
  CachedForward own = forward(1, 16, 16);
  Generator generator(own, kVocabulary);
  const Generated stopped = generator.run_one(greedy_, [n = 0](std::int32_t) mutable { return ++n < 3; });
  EXPECT_EQ(stopped.end, GenerationEnd::caller);
  EXPECT_EQ(stopped.ids.size(), 3u);
  greedy_.most_tokens = 100;
  const Generated full = generator.run_one(greedy_, [](std::int32_t) { return true; });
  EXPECT_EQ(full.end, GenerationEnd::length);
  EXPECT_EQ(full.ids.size(), 14u);  // 3 + 13 stand in the 16 places; the last is only drawn
}

// A conversation: what the slot holds of the next prompt is not read again, and nothing else is different.
TEST_F(Generation, GoesOnFromWhatItHolds) {
  CachedForward own = forward(1);
  Generator generator(own, kVocabulary);
  const auto all = [](std::int32_t) { return true; };
  const Generated reply = generator.run_one(greedy_, all);
  GenerationRequest next = greedy_;
  next.prompt.insert(next.prompt.end(), reply.ids.begin(), reply.ids.end());
  next.prompt.insert(next.prompt.end(), {9, 2});
  expect_same(generator.run_one(next, all), text(next));
  next.prompt[4] = (next.prompt[4] + 1) % 59;  // another past
  expect_same(generator.run_one(next, all), text(next));
  expect_same(generator.run_one(greedy_, all), text(greedy_));  // all of it is held
}

TEST_F(Generation, RefusesPromptsThatCannotBeGoneOnFrom) {
  const auto code_of = [&](const GenerationRequest& request) {
    try {
      text(request);
      return ExitCode::done;
    } catch (const Error& error) {
      return error.code();
    }
  };
  GenerationRequest request = greedy_;
  request.prompt.clear();
  EXPECT_EQ(code_of(request), ExitCode::usage);
  request.prompt.assign(41, 1);
  EXPECT_EQ(code_of(request), ExitCode::usage);
  request.prompt.assign(40, 1);
  EXPECT_EQ(text(request).ids.size(), 1u);
  request.sampling.top_p = 0;
  EXPECT_EQ(code_of(request), ExitCode::usage);
}

}  // namespace
}  // namespace shoestring::testing
