#include "core/training/step_metrics.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace shoestring {
namespace {

StepMetrics metrics_of(const StepOutcome& outcome) {
  TrainingState state;
  state.step = 7;
  state.tokens = 700;
  state.guard.clipped = 2;
  state.guard.skipped = 3;
  return step_metrics(outcome, state, "only");
}

TEST(StepMetrics, TakesTheStepAndWhereTheRunStands) {
  StepOutcome outcome;
  outcome.loss = 1.5;
  outcome.gradient_norm = 4;
  outcome.learning_rate = 0.125;
  outcome.sequences = 8;
  outcome.batch.further_loss = 9;
  outcome.batch.further_tokens = 6;
  const StepMetrics metrics = metrics_of(outcome);
  EXPECT_EQ(metrics.step, 7);
  EXPECT_EQ(metrics.tokens, 700);
  EXPECT_EQ(metrics.phase, "only");
  EXPECT_EQ(metrics.sequences, 8);
  EXPECT_EQ(metrics.loss, 1.5);
  EXPECT_EQ(metrics.mtp_loss, 1.5);
  EXPECT_EQ(metrics.gradient_norm, 4);
  EXPECT_EQ(metrics.learning_rate, 0.125);
  EXPECT_EQ(metrics.clipped_steps, 2);
  EXPECT_EQ(metrics.skipped_steps, 3);
  EXPECT_EQ(metrics.clipped_to, 0);
  EXPECT_EQ(metrics.expert_overload, 0);
  EXPECT_TRUE(metrics.shares.empty());
}

// Each verdict says why under a key of its own.
TEST(StepMetrics, SaysWhatTheGuardDid) {
  StepOutcome outcome;
  outcome.gradient_norm = 4;
  outcome.judgement = {.verdict = StepVerdict::apply, .norm_limit = 1, .why = "odd"};
  StepMetrics metrics = metrics_of(outcome);
  EXPECT_EQ(metrics.clipped_to, 1);
  EXPECT_EQ(metrics.stands_out, "odd");
  EXPECT_EQ(metrics.skipped + metrics.went_back, "");
  outcome.judgement.verdict = StepVerdict::skip;
  metrics = metrics_of(outcome);
  EXPECT_EQ(metrics.skipped, "odd");
  EXPECT_EQ(metrics.stands_out + metrics.went_back, "");
  EXPECT_EQ(metrics.clipped_to, 0);
  outcome.judgement.verdict = StepVerdict::end;
  EXPECT_EQ(metrics_of(outcome).skipped, "odd");
  outcome.judgement.verdict = StepVerdict::go_back;
  metrics = metrics_of(outcome);
  EXPECT_EQ(metrics.went_back, "odd");
  EXPECT_EQ(metrics.stands_out + metrics.skipped, "");
}

TEST(StepMetrics, OverloadIsOfTheWorstLayer) {
  StepOutcome outcome;
  outcome.batch.router_counts = Tensor(DType::i64, {2, 4});
  const std::int64_t loads[] = {5, 5, 5, 5, 2, 10, 4, 4};
  std::copy(std::begin(loads), std::end(loads), outcome.batch.router_counts.as<std::int64_t>());
  EXPECT_DOUBLE_EQ(metrics_of(outcome).expert_overload, 1.0);  // 10 over a mean of 5
}

TEST(StepMetrics, SharesAreOfTheirOwnClass) {
  StepOutcome outcome;
  outcome.batch.precision.activations = {.elements = 100, .saturated = 1, .underflowed = 2};
  outcome.batch.precision.gradients = {.elements = 10, .saturated = 3, .underflowed = 4};
  const std::vector<std::pair<std::string, double>> expected = {{"saturated.activation", 0.01},
                                                                {"underflowed.activation", 0.02},
                                                                {"saturated.gradient", 0.3},
                                                                {"underflowed.gradient", 0.4}};
  EXPECT_EQ(metrics_of(outcome).shares, expected);
}

}  // namespace
}  // namespace shoestring
