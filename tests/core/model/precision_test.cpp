// Policies on whole models: the same weights and batch in every format.
#include "core/model/precision.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "tests/core/model/small_models.h"
#include "tests/support/fill.h"

namespace shoestring::testing {
namespace {

constexpr std::int64_t kSequence = 72;

std::unique_ptr<SmallRun> tiled_run(Architecture architecture, const PrecisionSpec& spec, int stages = 1,
                                    int workers = 1, std::int64_t sequence = kSequence) {
  return std::make_unique<SmallRun>(tiled_config(architecture), spec, stages, 2, sequence, workers);
}

/// |a - b| / |b| over all gradients.
double relative_distance(const Tensor& a, const Tensor& b) {
  double difference = 0;
  double norm = 0;
  for (std::int64_t i = 0; i < a.view().elements(); ++i) {
    const double d = double{a.as<float>()[i]} - b.as<float>()[i];
    difference += d * d;
    norm += double{b.as<float>()[i]} * b.as<float>()[i];
  }
  return std::sqrt(difference / norm);
}

struct Outcome {
  double loss = 0;
  double further = 0;
  Tensor gradients;
};

Outcome outcome(Architecture architecture, const PrecisionSpec& spec) {
  const auto run = tiled_run(architecture, spec);
  const ObjectiveSums sums = run->step().objective;
  return {sums.main.loss / static_cast<double>(sums.main.tokens), sums.further.loss,
          copy(run->model.store().gradients)};
}

struct PolicyBound {
  PrecisionPolicy policy;
  double loss;  ///< relative
  /// Relative distance of all gradients. E4M3 rounds an operand by 2^-3.5 / sqrt(12) = 0.026 rms, a product by 0.037; a
  /// gradient has passed about 14 products: 0.14.
  double gradient;
};

class EveryPolicy : public ::testing::TestWithParam<PolicyBound> {};
INSTANTIATE_TEST_SUITE_P(Precision, EveryPolicy,
                         ::testing::Values(PolicyBound{PrecisionPolicy::bf16, 5e-4, 0.02},
                                           PolicyBound{PrecisionPolicy::fp8_block, 5e-3, 0.2},
                                           PolicyBound{PrecisionPolicy::fp8_tensor, 5e-3, 0.2},
                                           PolicyBound{PrecisionPolicy::mxfp8, 5e-3, 0.2}));

TEST_P(EveryPolicy, StaysCloseToSinglePrecision) {
  const PolicyBound bound = GetParam();
  for (const Architecture architecture : {Architecture::llama, Architecture::qwen3}) {
    const Outcome plain = outcome(architecture, policy(PrecisionPolicy::fp32));
    const Outcome low = outcome(architecture, policy(bound.policy));
    EXPECT_NEAR(low.loss, plain.loss, bound.loss * plain.loss) << name(architecture);
    const double distance = relative_distance(low.gradients, plain.gradients);
    EXPECT_LT(distance, bound.gradient) << name(architecture);
    EXPECT_GT(distance, bound.gradient / 50) << name(architecture) << ": is the policy used at all?";
  }
}

// Experts change where scores are close, which no bound on rounding covers: only the losses are compared.
TEST_P(EveryPolicy, ExpertsTrain) {
  const PolicyBound bound = GetParam();
  for (const Architecture architecture : {Architecture::qwen3_moe, Architecture::deepseek_v3}) {
    const Outcome plain = outcome(architecture, policy(PrecisionPolicy::fp32));
    const Outcome low = outcome(architecture, policy(bound.policy));
    EXPECT_NEAR(low.loss, plain.loss, (0.005 + bound.loss) * plain.loss) << name(architecture);
    EXPECT_LT(relative_distance(low.gradients, plain.gradients), 0.6) << name(architecture);
  }
}

// Double and single precision agree to rounding: the fast variants against the references, whole models through.
TEST(Precision, SingleAgreesWithDouble) {
  for (const Architecture architecture : {Architecture::llama, Architecture::deepseek_v3}) {
    const auto wide = tiled_run(architecture, policy(PrecisionPolicy::fp64), 1, 1, 8);
    const auto plain = tiled_run(architecture, policy(PrecisionPolicy::fp32), 1, 1, 8);
    const ObjectiveSums a = wide->step().objective;
    const ObjectiveSums b = plain->step().objective;
    EXPECT_NEAR(b.main.loss, a.main.loss, 1e-6 * a.main.loss) << name(architecture);
    EXPECT_EQ(a.main.tokens, b.main.tokens);
    const Tensor gradients = cast(wide->model.store().gradients, DType::f32);
    EXPECT_LT(relative_distance(copy(plain->model.store().gradients), gradients), 2e-5) << name(architecture);
  }
}

bool same_bits(const Tensor& a, const Tensor& b) {
  return a.bytes() == b.bytes() && std::memcmp(a.as<char>(), b.as<char>(), static_cast<std::size_t>(a.bytes())) == 0;
}

/// Two micro-batches through one stage, in the order given by letters: F, B, W and the number.
Tensor in_order(Architecture architecture, const PrecisionSpec& spec, const std::string& order) {
  const auto run = tiled_run(architecture, spec);
  SmallBatch other(run->model.config().vocabulary, 2, kSequence, 77);
  const std::unique_ptr<MicroBatch> first = run->micro_batch(run->batch.view(), 0);
  const std::unique_ptr<MicroBatch> second = run->micro_batch(other.view(), 1);
  StepTally tally = run->model.tally();
  TransformerStage& stage = *run->model.stages().front();
  for (std::size_t i = 0; i < order.size(); i += 2) {
    const MicroBatch& batch = order[i + 1] == '0' ? *first : *second;
    if (order[i] == 'F') stage.forward(batch, {}, {}, tally);
    if (order[i] == 'B') stage.backward_input(batch, {}, {}, tally);
    if (order[i] == 'W') stage.backward_weight(batch, tally);
  }
  return copy(run->model.store().gradients);
}

// Weight gradients may run any time later. (The head's own are taken in forward: their order is that of forwards.)
TEST(Precision, DelayedWeightGradientsHaveTheSameBits) {
  for (const PrecisionPolicy format : {PrecisionPolicy::bf16, PrecisionPolicy::fp8_block}) {
    for (const Architecture architecture : {Architecture::qwen3, Architecture::deepseek_v3}) {
      const Tensor at_once = in_order(architecture, policy(format), "F0B0W0F1B1W1");
      EXPECT_TRUE(same_bits(at_once, in_order(architecture, policy(format), "F0F1B0B1W0W1"))) << name(architecture);
      EXPECT_TRUE(same_bits(at_once, in_order(architecture, policy(format), "F0B0F1W0B1W1"))) << name(architecture);
      EXPECT_FALSE(same_bits(at_once, in_order(architecture, policy(format), "F1B1W1F1B1W1"))) << name(architecture);
    }
  }
}

TEST(Precision, StagesAndWorkersDoNotChangeBits) {
  for (const PrecisionPolicy format : {PrecisionPolicy::fp32, PrecisionPolicy::bf16, PrecisionPolicy::fp8_block}) {
    for (const Architecture architecture : {Architecture::qwen3_moe, Architecture::deepseek_v3}) {
      const auto one = tiled_run(architecture, policy(format));
      const auto cut = tiled_run(architecture, policy(format), 2);
      const auto wide = tiled_run(architecture, policy(format), 1, 3);
      const StepTally tally = one->step();
      for (SmallRun* other : {cut.get(), wide.get()}) {
        const StepTally same = other->step();
        EXPECT_EQ(same.objective.main.loss, tally.objective.main.loss);
        EXPECT_EQ(same.balance_losses, tally.balance_losses);
        EXPECT_TRUE(same_bits(same.expert_loads, tally.expert_loads));
      }
      EXPECT_TRUE(same_bits(copy(cut->model.store().gradients), copy(one->model.store().gradients)));
      EXPECT_TRUE(same_bits(copy(wide->model.store().gradients), copy(one->model.store().gradients)));
    }
  }
}

// Every element of the policy is a key: all of them run and stay close.
TEST(Precision, EveryKeyRuns) {
  const Outcome plain = outcome(Architecture::deepseek_v3, policy(PrecisionPolicy::fp32));
  const auto near = [&](const char* what, const PrecisionSpec& spec) {
    EXPECT_NEAR(outcome(Architecture::deepseek_v3, spec).loss, plain.loss, 0.01 * plain.loss) << what;
  };
  PrecisionSpec base = policy(PrecisionPolicy::fp8_block);
  PrecisionSpec spec = base;
  spec.scales = ScaleFormat::power_of_two;
  near("power-of-two scales", spec);
  spec = base;
  spec.gradients_e5m2 = true;
  near("e5m2 gradients", spec);
  spec = base;
  spec.cache_fp8 = false;
  near("plain cache", spec);
  for (const LinearFormat format : {LinearFormat::bf16, LinearFormat::fp32}) {
    spec = base;
    spec.forward = format;
    near("forward", spec);
    spec = base;
    spec.input_gradient = format;
    near("input gradient", spec);
    spec = base;
    spec.weight_gradient = format;
    near("weight gradient", spec);
  }
}

TEST(Precision, CountsSeeEveryClass) {
  const auto run = tiled_run(Architecture::deepseek_v3, policy(PrecisionPolicy::fp8_block));
  const PrecisionCounts counts = run->step().precision;
  EXPECT_GT(counts.activations.elements, 0);
  EXPECT_GT(counts.gradients.elements, 0);
  EXPECT_EQ(counts.gradients.non_finite, 0);
  EXPECT_EQ(counts.weights.elements, 0);  // those are counted when they are prepared
  run->model.prepare();
  EXPECT_GT(run->model.weight_counts().elements, 0);
  EXPECT_EQ(run->step().precision.activations.elements, counts.activations.elements);  // each pass by itself
}

TEST(Precision, EvaluationIsTheForwardPassOfTraining) {
  for (const PrecisionPolicy format : {PrecisionPolicy::fp32, PrecisionPolicy::fp8_block}) {
    const auto run = tiled_run(Architecture::deepseek_v3, policy(format));
    const ObjectiveSums sums = run->step().objective;
    const Tensor gradients = copy(run->model.store().gradients);
    const LossSum evaluated = run->model.evaluate(run->batch.view());
    EXPECT_EQ(evaluated.loss, sums.main.loss);
    EXPECT_EQ(evaluated.tokens, sums.main.tokens);
    EXPECT_TRUE(same_bits(copy(run->model.store().gradients), gradients));  // untouched
  }
}

}  // namespace
}  // namespace shoestring::testing
