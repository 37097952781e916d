#include "core/model/transformer.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <map>

#include "tests/core/model/small_models.h"
#include "tests/support/compare.h"
#include "tests/support/fill.h"
#include "tests/support/gradient.h"

namespace shoestring::testing {
namespace {

std::string label(Architecture architecture) { return std::string(name(architecture)); }

class EveryArchitecture : public ::testing::TestWithParam<Architecture> {};

INSTANTIATE_TEST_SUITE_P(Transformer, EveryArchitecture,
                         ::testing::Values(Architecture::llama, Architecture::qwen2, Architecture::qwen3,
                                           Architecture::qwen3_moe, Architecture::deepseek_v2,
                                           Architecture::deepseek_v3),
                         [](const auto& tested) { return label(tested.param); });

// Every parameter of a whole model, document boundaries inside, against central differences in double. The step is
// small beside the gaps between router scores, so that no difference crosses a change of experts.
TEST_P(EveryArchitecture, GradientsMatchCentralDifferences) {
  SmallRun run(small_config(GetParam()), policy(PrecisionPolicy::fp64), 1, 2, 9);
  run.total_loss();
  const Tensor analytic = copy(run.model.store().gradients.view());
  for (Parameter* parameter : run.model.parameters()) {
    if (parameter->role == ParameterRole::statistic) continue;
    const auto offset = parameter->grad.as<double>() - run.model.store().gradients.as<double>();
    const ConstTensorView gradient =
        view_of(static_cast<const void*>(analytic.as<double>() + offset), DType::f64, parameter->grad.shape);
    const GradientCheck check{.step = 2e-5, .tolerance = 1e-6, .samples = 2, .seed = 9};
    EXPECT_TRUE(gradient_matches([&] { return run.total_loss(); }, parameter->value, gradient, check))
        << parameter->slices.front().name;
  }
}

// A wrong gradient must not pass the same check.
TEST(Transformer, GradientCheckSeesASmallFault) {
  SmallRun run(small_config(Architecture::llama), policy(PrecisionPolicy::fp64));
  run.total_loss();
  Parameter& parameter = run.parameter("model.layers.0.mlp.up_proj.weight");
  Tensor gradient = copy(parameter.grad);
  for (std::int64_t i = 0; i < gradient.view().elements(); ++i) gradient.as<double>()[i] *= 1.00001;
  const GradientCheck check{.step = 2e-5, .tolerance = 1e-6, .samples = 2, .seed = 9};
  EXPECT_FALSE(gradient_matches([&] { return run.total_loss(); }, parameter.value, gradient, check));
}

// What an earlier batch left in the gradients does not matter, cleared or overwritten.
TEST_P(EveryArchitecture, ANewSumForgetsTheOldOne) {
  for (const PrecisionPolicy format : {PrecisionPolicy::fp32, PrecisionPolicy::fp8_block}) {
    SmallRun run(tiled_config(GetParam()), policy(format), 1, 2, 128);
    run.step();
    const Tensor expected = copy(run.model.store().gradients);
    for (Parameter* parameter : run.model.parameters()) {
      if (!parameter->grad.empty()) fill_constant(parameter->grad, 3.0);
    }
    run.step();
    EXPECT_TRUE(same_bits(copy(run.model.store().gradients), expected));
  }
}

// A part of the gradients that a stage says it is done with stays as it is; together they are all but tables and heads.
TEST_P(EveryArchitecture, PartsAreWholeWhenTheirStageIsDoneWithThem) {
  for (const int stages : {1, 2}) {
    SmallRun run(small_config(GetParam()), policy(PrecisionPolicy::bf16), stages);
    std::map<Parameter*, Tensor> told;
    std::vector<int> next(static_cast<std::size_t>(stages), 0);
    run.step([&](std::size_t stage, int part) {
      EXPECT_EQ(part, next[stage]++);
      const auto parts = run.model.stages()[stage]->gradient_parts();
      for (Parameter* parameter : parts.at(static_cast<std::size_t>(part))) {
        if (!parameter->has_gradient()) continue;
        EXPECT_TRUE(told.emplace(parameter, copy(parameter->grad)).second) << parameter->slices.front().name;
      }
    });
    run.model.join_shared_gradients(*self_communicator(), 0, 0);
    for (Parameter* parameter : run.model.parameters()) {
      if (!parameter->has_gradient()) continue;
      const auto found = told.find(parameter);
      EXPECT_EQ(found != told.end(), parameter->role != ParameterRole::embedding) << parameter->slices.front().name;
      if (found == told.end()) continue;
      EXPECT_TRUE(same_bits(found->second, parameter->grad)) << parameter->slices.front().name;
    }
  }
}

}  // namespace
}  // namespace shoestring::testing
