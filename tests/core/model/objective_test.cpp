// Objectives: the next token, and one that only this file knows.
#include "core/model/objective.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "kernels/base/check.h"
#include "tests/core/model/small_models.h"
#include "tests/support/compare.h"
#include "tests/support/fill.h"
#include "tests/support/gradient.h"

namespace shoestring::testing {
namespace {

constexpr std::int64_t kSequence = 9;

/// A policy gradient: -advantage[t] ln p(target[t]). In double only.
class Rewarded final : public Objective {
 public:
  explicit Rewarded(double further_weight) : further_weight_(further_weight) {}

  void rows(const ObjectiveRows& rows, const LossTotals& sum, Stream&) const override {
    const float* advantages = rows.batch.column("advantage").as<float>() + rows.begin;
    for (std::int64_t r = 0; r < rows.logits.shape[0]; ++r) {
      const double* row = rows.logits.as<double>() + r * rows.logits.strides[0];
      const std::vector<double> logits(row, row + rows.logits.shape[1]);
      const std::int32_t target = rows.targets.as<std::int32_t>()[r];
      const double advantage = target < 0 ? 0.0 : double{advantages[r]};
      double total = 0;
      for (const double logit : logits) total += std::exp(logit);
      if (target >= 0) {
        *sum.loss.as<double>() -= advantage * (logits[static_cast<std::size_t>(target)] - std::log(total));
        ++*sum.tokens.as<std::int64_t>();
      }
      if (rows.dlogits.empty()) continue;
      double* dlogits = rows.dlogits.as<double>() + r * rows.dlogits.strides[0];
      for (std::size_t i = 0; i < logits.size(); ++i) {
        const double hit = static_cast<std::int32_t>(i) == target ? 1.0 : 0.0;
        dlogits[i] = weight(rows.depth) * advantage * (std::exp(logits[i]) / total - hit);
      }
    }
  }
  double weight(Depth depth) const override { return depth == Depth::next ? 1.0 : further_weight_; }
  std::vector<TokenColumn> columns() const override { return {{"advantage"}}; }

 private:
  double further_weight_;
};

/// A small model that is trained on advantages, which are given with its batch.
struct RewardedRun {
  explicit RewardedRun(Architecture architecture, const std::vector<float>& given)
      : advantages(given),
        objective(small_config(architecture).mtp_weight),
        run(small_config(architecture), policy(PrecisionPolicy::fp64), 1, 2, kSequence, 1, &objective) {
    run.batch.columns = {{"advantage", advantages}};
  }
  std::vector<float> advantages;
  Rewarded objective;
  SmallRun run;
};

std::vector<float> mixed_advantages() {
  std::vector<float> values;
  for (int t = 0; t < 2 * kSequence; ++t) values.push_back(0.25F * static_cast<float>(t % 7) - 0.5F);
  return values;
}

// All of a new objective is in its class: the model brings its columns, its gradient goes through every layer.
TEST(Objective, ATestsOwnOneTrainsEveryParameter) {
  for (const Architecture architecture : {Architecture::llama, Architecture::deepseek_v3}) {
    RewardedRun rewarded(architecture, mixed_advantages());
    SmallRun& run = rewarded.run;
    run.total_loss();
    const Tensor analytic = copy(run.model.store().gradients.view());
    for (Parameter* parameter : run.model.parameters()) {
      if (parameter->role == ParameterRole::statistic) continue;
      const auto offset = parameter->grad.as<double>() - run.model.store().gradients.as<double>();
      const ConstTensorView gradient =
          view_of(static_cast<const void*>(analytic.as<double>() + offset), DType::f64, parameter->grad.shape);
      const GradientCheck check{.step = 2e-5, .tolerance = 1e-6, .samples = 1, .seed = 9};
      EXPECT_TRUE(gradient_matches([&] { return run.total_loss(); }, parameter->value, gradient, check))
          << parameter->slices.front().name;
    }
  }
}

// Where every advantage is 1 it is the cross-entropy of the next token.
TEST(Objective, EqualAdvantagesAreTheNextToken) {
  RewardedRun rewarded(Architecture::deepseek_v3, std::vector<float>(2 * kSequence, 1.0F));
  SmallRun plain(small_config(Architecture::deepseek_v3), policy(PrecisionPolicy::fp64), 1, 2, kSequence);
  const ObjectiveSums a = rewarded.run.step().objective;
  const ObjectiveSums b = plain.step().objective;
  EXPECT_NEAR(a.main.loss, b.main.loss, 1e-12 * b.main.loss);
  EXPECT_NEAR(a.further.loss, b.further.loss, 1e-12 * b.further.loss);
  EXPECT_EQ(a.main.tokens, b.main.tokens);
  EXPECT_EQ(a.further.tokens, b.further.tokens);
  double most = 0;
  double largest = 0;
  const auto* ours = rewarded.run.model.store().gradients.as<double>();
  const auto* theirs = plain.model.store().gradients.as<double>();
  for (std::int64_t i = 0; i < plain.model.store().gradients.shape().elements(); ++i) {
    most = std::max(most, std::abs(ours[i] - theirs[i]));
    largest = std::max(largest, std::abs(theirs[i]));
  }
  EXPECT_GT(largest, 0);
  EXPECT_LT(most, 1e-12 * largest);
}

// Held-out loss stays comparable whatever is trained, and needs no column.
TEST(Objective, EvaluationIsOfTheNextToken) {
  RewardedRun rewarded(Architecture::llama, mixed_advantages());
  SmallRun plain(small_config(Architecture::llama), policy(PrecisionPolicy::fp64), 1, 2, kSequence);
  const LossSum evaluated = rewarded.run.model.evaluate(plain.batch.view());
  EXPECT_EQ(evaluated.loss, plain.model.evaluate(plain.batch.view()).loss);
  EXPECT_NE(evaluated.loss, rewarded.run.step().objective.main.loss);
}

TEST(Objective, ABatchWithoutItsColumnIsRefused) {
  RewardedRun rewarded(Architecture::llama, mixed_advantages());
  rewarded.run.batch.columns.clear();
  EXPECT_THROW(rewarded.run.step(), Error);
}

// The weight is on the gradient and not on the sum.
TEST(Objective, FurtherTokensWeighAsTheModelSays) {
  SmallRun run(small_config(Architecture::deepseek_v3), policy(PrecisionPolicy::fp64), 1, 2, kSequence);
  const NextToken halved(run.model.config().mtp_weight / 2);
  SmallRun less(small_config(Architecture::deepseek_v3), policy(PrecisionPolicy::fp64), 1, 2, kSequence, 1, &halved);
  EXPECT_EQ(run.step().objective.further.loss, less.step().objective.further.loss);
  const Parameter& whole = run.parameter("model.layers.3.shared_head.norm.weight");
  const Parameter& half = less.parameter("model.layers.3.shared_head.norm.weight");
  for (std::int64_t i = 0; i < whole.rows; ++i) {
    EXPECT_NEAR(half.grad.as<double>()[i], 0.5 * whole.grad.as<double>()[i], 1e-12);
  }
}

/// The same model, trained on the next token by the weights given with its batch.
struct MaskedRun {
  MaskedRun(Architecture architecture, PrecisionPolicy format, std::vector<float> given)
      : weights(std::move(given)),
        objective(small_config(architecture).mtp_weight),
        run(small_config(architecture), policy(format), 1, 2, kSequence, 1, &objective) {
    run.batch.columns = {{kWeightColumn, weights}};
  }
  std::vector<float> weights;
  Masked objective;
  SmallRun run;
};

TEST(Objective, WeightsOfOneAreTheNextTokenBitForBit) {
  for (const PrecisionPolicy format : {PrecisionPolicy::fp64, PrecisionPolicy::fp32, PrecisionPolicy::bf16}) {
    MaskedRun masked(Architecture::deepseek_v3, format, std::vector<float>(2 * kSequence, 1.0F));
    SmallRun plain(small_config(Architecture::deepseek_v3), policy(format), 1, 2, kSequence);
    const ObjectiveSums a = masked.run.step().objective;
    const ObjectiveSums b = plain.step().objective;
    EXPECT_EQ(a.main.loss, b.main.loss);
    EXPECT_EQ(a.main.weight, static_cast<double>(b.main.tokens));
    EXPECT_EQ(b.main.weight, static_cast<double>(b.main.tokens));
    EXPECT_EQ(a.further.loss, b.further.loss);
    EXPECT_TRUE(same_bits(masked.run.model.store().gradients, plain.model.store().gradients));
  }
}

// A weighted token is one with that advantage: the other implementation is this file's.
TEST(Objective, WeightsAreAdvantages) {
  const std::vector<float> values = mixed_advantages();
  MaskedRun masked(Architecture::llama, PrecisionPolicy::fp64, values);
  RewardedRun rewarded(Architecture::llama, values);
  const LossSum ours = masked.run.step().objective.main;
  const LossSum theirs = rewarded.run.step().objective.main;
  EXPECT_NEAR(ours.loss, theirs.loss, 1e-12 * std::abs(theirs.loss));
  const auto* a = masked.run.model.store().gradients.as<double>();
  const auto* b = rewarded.run.model.store().gradients.as<double>();
  double largest = 0;
  for (std::int64_t i = 0; i < masked.run.model.store().gradients.shape().elements(); ++i) {
    EXPECT_NEAR(a[i], b[i], 1e-12);
    largest = std::max(largest, std::abs(b[i]));
  }
  EXPECT_GT(largest, 1e-6);
}

}  // namespace
}  // namespace shoestring::testing
