#include "core/model/parameter.h"

#include <gtest/gtest.h>

#include "core/model/initialise.h"
#include "core/model/linear.h"
#include "tests/core/model/small_models.h"
#include "tests/support/compare.h"

namespace shoestring::testing {
namespace {

bool within(const Parameter& parameter, const ParameterStore& store, StoreRegion region) {
  const auto begin = parameter.value.as<float>() - store.values.as<float>();
  return begin >= region.begin && begin + parameter.elements() <= region.end;
}

TEST(ParameterStore, ExpertsStandBehindWhatIsDense) {
  SmallRun run(small_config(Architecture::deepseek_v3), policy(PrecisionPolicy::fp32));
  const ParameterStore& store = run.model.store();
  EXPECT_EQ(store.dense.begin, 0);
  EXPECT_EQ(store.dense.end, store.experts.begin);
  EXPECT_EQ(store.experts.end, store.gradients.shape().elements());
  EXPECT_LT(store.experts.end, store.values.shape().elements());  // balancing biases
  std::int64_t of_experts = 0;
  for (const Parameter* parameter : run.model.parameters()) {
    const auto offset = parameter->value.as<float>() - store.values.as<float>();
    EXPECT_EQ(offset % 16, 0) << parameter->slices.front().name;
    const bool statistic = parameter->role == ParameterRole::statistic;
    EXPECT_EQ(within(*parameter, store, store.experts), parameter->of_experts()) << parameter->slices.front().name;
    EXPECT_EQ(within(*parameter, store, store.dense), !parameter->of_experts() && !statistic);
    EXPECT_EQ(parameter->grad.empty(), statistic);
    if (!statistic) {
      EXPECT_EQ(parameter->grad.as<float>() - store.gradients.as<float>(), offset);
    }
    if (parameter->of_experts()) of_experts += parameter->elements();
  }
  const ModelConfig& config = run.model.config();
  EXPECT_EQ(of_experts, config.mixtures() * config.experts * 3 * config.hidden * config.expert_feed_forward);
}

TEST(ParameterStore, ADenseModelHasNoExpertRegion) {
  SmallRun run(small_config(Architecture::llama), policy(PrecisionPolicy::fp32));
  EXPECT_TRUE(run.model.store().experts.empty());
  EXPECT_EQ(run.model.store().dense.end, run.model.store().values.shape().elements());
}

TEST(Parameter, KnowsItsExperts) {
  TransformerOptions options;
  options.model = small_config(Architecture::qwen3_moe);
  options.run = {1, 1, 1};
  const Transformer model(options);
  int seen = 0;
  for (const Parameter* parameter : model.parameters()) {
    if (!parameter->of_experts()) continue;
    for (const ParameterSlice& slice : parameter->slices) {
      const std::string expected = ".experts." + std::to_string(parameter->expert_of(slice)) + ".";
      EXPECT_NE(slice.name.find(expected), std::string::npos) << slice.name << " is not of" << expected;
      ++seen;
    }
  }
  EXPECT_EQ(seen, model.config().layers * model.config().experts * 3);
}

/// Experts [first, first + count) of eight, each [4, 6].
LinearOptions share_of(std::int64_t first, std::int64_t count) {
  LinearOptions options{.in = 6, .out = 4, .experts = count, .first_expert = first, .init_std = 0.1};
  for (std::int64_t e = first; e < first + count; ++e) {
    append_slice(options.slices, "mlp.experts." + std::to_string(e) + ".down_proj.weight", 4, 6);
  }
  return options;
}

// An expert's numbers are its own, on whichever rank it stands.
TEST(Parameter, AShareOfTheExpertsIsAPartOfTheWhole) {
  Workers workers(1);
  Stream stream(workers);
  Linear whole(share_of(0, 8));
  Linear share(share_of(5, 3));
  EXPECT_EQ(share.weight.expert_of(share.weight.slices[1]), 6);
  EXPECT_EQ(share.weight.slices[1].name, whole.weight.slices[6].name);
  const ParameterStore of_whole({&whole.weight}, DType::f32);
  const ParameterStore of_share({&share.weight}, DType::f32);
  initialise_parameter(whole.weight, 7, stream);
  initialise_parameter(share.weight, 7, stream);
  EXPECT_TRUE(same_bits(share.weight.value, whole.weight.value.slice(0, 5 * 4, 3 * 4)));
}

}  // namespace
}  // namespace shoestring::testing
