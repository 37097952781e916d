// Adapters within a whole model; their gradients are checked in layer_test.cpp.
#include "core/model/adapter.h"

#include <gtest/gtest.h>

#include <cmath>

#include "core/training/memory_plan.h"
#include "kernels/base/check.h"
#include "tests/core/model/small_models.h"
#include "tests/support/fill.h"

namespace shoestring::testing {
namespace {

const LoraSpec kLora{.rank = 4, .alpha = 6, .targets = {"q_proj", "v_proj", "down_proj"}};

const LoraSpec kEverywhere{.rank = 3, .alpha = 6};

SmallRun adapted_run(const ModelConfig& config, PrecisionPolicy precision, const LoraSpec& lora = kLora) {
  return {config, policy(precision), 1, 2, 12, 1, nullptr, {}, lora};
}

/// Loss of a model that has no adapters, but the weights that those of `run` amount to, times `factor`.
double merged_loss(SmallRun& run, double share = 1) {
  SmallRun plain(run.model.config(), run.model.precision());
  for (Parameter* parameter : run.model.parameters()) {
    if (parameter->role == ParameterRole::factor) continue;
    for (const ParameterSlice& slice : parameter->slices) {
      Parameter& other = plain.parameter(slice.name);
      const TensorView to = other.value.slice(0, slice.begin, slice.rows);
      const ConstTensorView from = parameter->value.slice(0, slice.begin, slice.rows);
      copy_tensor(to, from, plain.stream);
      if (parameter->adapter == nullptr || !parameter->adapter->adapts(slice)) continue;
      parameter->adapter->add_to(to, slice, plain.stream);
      for (std::int64_t i = 0; i < to.elements(); ++i) {
        double& sum = to.as<double>()[i];
        sum = from.as<double>()[i] + share * (sum - from.as<double>()[i]);
      }
    }
  }
  plain.model.prepare();
  return plain.total_loss();
}

void fill_factors(SmallRun& run) {
  std::uint64_t seed = 7;
  for (Parameter* parameter : run.model.parameters()) {
    if (parameter->role == ParameterRole::factor) fill_normal(parameter->value, ++seed, 0.2);
  }
  run.model.prepare();
}

TEST(Adapter, TheModelIsThatOfTheMergedWeights) {
  for (const Architecture architecture :
       {Architecture::llama, Architecture::qwen2, Architecture::qwen3, Architecture::qwen3_moe,
        Architecture::deepseek_v2, Architecture::deepseek_v3}) {
    ModelConfig config = small_config(architecture);
    config.mtp_layers = 0;  // the further token's block has no adapters
    SmallRun run = adapted_run(config, PrecisionPolicy::fp64, kEverywhere);
    fill_factors(run);
    const double loss = run.total_loss();
    const double bound = 1e-12 * std::abs(loss);  // a few hundred roundings of doubles
    EXPECT_NEAR(loss, merged_loss(run), bound) << name(architecture);
    EXPECT_GT(std::abs(loss - merged_loss(run, 0.99)), 1e3 * bound) << "the bound sees nothing";
  }
}

TEST(Adapter, ARunBeginsWithTheModelAsItIs) {
  SmallRun run = adapted_run(small_config(Architecture::llama), PrecisionPolicy::fp32);
  run.model.initialise_factors(17);
  run.model.prepare();
  SmallRun plain(small_config(Architecture::llama), policy(PrecisionPolicy::fp32));
  EXPECT_EQ(run.total_loss(), plain.total_loss());
  bool moves = false;
  for (const Parameter* parameter : run.model.parameters()) {
    if (parameter->role != ParameterRole::factor) {
      EXPECT_TRUE(parameter->grad.empty()) << parameter->slices.front().name;
    } else {
      for (std::int64_t i = 0; i < parameter->elements(); ++i) moves = moves || parameter->grad.as<float>()[i] != 0;
    }
  }
  EXPECT_TRUE(moves);
}

TEST(Adapter, NothingIsKeptForWhatIsFrozen) {
  for (const PrecisionPolicy precision : {PrecisionPolicy::fp32, PrecisionPolicy::bf16, PrecisionPolicy::fp8_block}) {
    const ModelConfig config = tiled_config(Architecture::llama);
    SmallRun run = adapted_run(config, precision);
    fill_factors(run);
    run.step();
    std::int64_t factors = 0;
    for (const Parameter* parameter : run.model.parameters()) {
      if (parameter->role == ParameterRole::factor) factors += parameter->elements();
    }
    // q: 4 (256 + 256); v: 4 (256 + 128); down: 4 (384 + 256), in each of two layers.
    EXPECT_EQ(factors, 2 * 4 * (512 + 384 + 640));
    Recipe recipe;
    recipe.phases.emplace_back().micro_batch = 1;
    recipe.phases.front().global_batch = 1;
    const MemoryPlan plan = plan_memory(run.model, recipe, {});
    EXPECT_EQ(plan.moments, 8 * factors);
    EXPECT_EQ(plan.model.gradients, 4 * factors);
    EXPECT_EQ(plan.merged, 2 * 4 * 256 * (256 + 128 + 384));
    EXPECT_EQ(run.model.store().gradients.bytes(), 4 * factors);
    EXPECT_LE(run.model.scratch_peak_bytes(), run.model.memory().scratch);
    EXPECT_LE(run.model.saved_peak_bytes(), run.model.memory().saved);
  }
}

// What is prepared of frozen weights holds over steps; what they lost in quantisation is told again.
TEST(Adapter, FrozenWeightsArePackedOnce) {
  for (const Architecture architecture : {Architecture::llama, Architecture::deepseek_v3}) {
    ModelConfig config = tiled_config(architecture);
    config.mtp_layers = 0;
    SmallRun run = adapted_run(config, PrecisionPolicy::fp8_block, kEverywhere);
    run.model.prepare();
    const QuantizeCounts all = run.model.weight_counts();
    fill_factors(run);
    const double loss = run.total_loss();
    std::uint64_t seed = 70;
    for (Parameter* parameter : run.model.parameters()) {
      if (parameter->role == ParameterRole::factor) fill_normal(parameter->value, ++seed, 0.2);
    }
    run.model.prepare_trained();
    const QuantizeCounts again = run.model.weight_counts();
    EXPECT_GT(all.elements, 0);
    EXPECT_EQ(again.elements, all.elements);
    EXPECT_EQ(again.underflowed, all.underflowed);
    EXPECT_EQ(again.amax, all.amax);
    const double moved = run.total_loss();
    EXPECT_NE(moved, loss) << "the factors are prepared";
    run.model.prepare();
    EXPECT_EQ(run.total_loss(), moved) << "nothing else had to be";
    // A frozen weight that moves all the same is not seen until everything is prepared.
    Parameter& weight = run.parameter("model.layers.0.self_attn.o_proj.weight");
    fill_normal(weight.value, 5, 0.2);
    run.model.prepare_trained();
    EXPECT_EQ(run.total_loss(), moved);
    run.model.prepare();
    EXPECT_NE(run.total_loss(), moved);
  }
}

}  // namespace
}  // namespace shoestring::testing
