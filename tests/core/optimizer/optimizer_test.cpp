#include "core/optimizer/optimizer.h"

#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "core/optimizer/clip.h"
#include "kernels/base/workers.h"
#include "kernels/fill.h"
#include "tests/core/model/small_models.h"
#include "tests/support/compare.h"
#include "tests/support/fill.h"

namespace shoestring::testing {
namespace {

constexpr double kScale = 0.02;  // 1 / tokens
constexpr double kRate = 0.01;

OptimizerSpec spec_of(OptimizerName name, double weight_decay) {
  OptimizerSpec spec;
  spec.name = name;
  spec.weight_decay = weight_decay;
  return spec;
}

/// A model with gradients, in double: what an optimizer does to it is compared with the formula.
struct Case {
  explicit Case(Architecture architecture = Architecture::deepseek_v3, const LoraSpec& lora = {})
      : run(small_config(architecture), policy(PrecisionPolicy::fp64), 1, 2, 12, 1, nullptr, {}, lora) {
    run.step();
    for (const Parameter* parameter : run.model.parameters()) before.push_back(copy(parameter->value));
  }

  std::unique_ptr<Optimizer> make(const OptimizerSpec& spec) {
    return make_optimizer(spec, MomentFormat::f32, run.model.parameters(), 1);
  }
  template <class Body>
  void each(const Body& body) {
    for (std::size_t i = 0; i < before.size(); ++i) body(*run.model.parameters()[i], before[i].view());
  }

  SmallRun run;
  std::vector<Tensor> before;
};

TEST(Optimizer, AdamWsFirstStepIsTheSignAndDecayIsForMatrices) {
  Case c;
  const OptimizerSpec spec = spec_of(OptimizerName::adamw, 0.5);
  c.make(spec)->step({kRate, kScale, 1}, c.run.stream);
  c.each([&](const Parameter& parameter, ConstTensorView before) {
    const double kept = parameter.role == ParameterRole::matrix ? 1 - kRate * spec.weight_decay : 1;
    for (std::int64_t i = 0; i < before.elements(); ++i) {
      double want = value_at(before, i);
      if (parameter.role != ParameterRole::statistic) {
        const double mean = kScale * value_at(parameter.grad, i);
        want = kept * want - kRate * mean / (std::abs(mean) + spec.epsilon);
      }
      ASSERT_NEAR(value_at(parameter.value, i), want, 1e-12) << parameter.slices.front().name << " at " << i;
    }
  });
}

/// The update of every matrix and factor has singular values near one, times 0.2 sqrt(longer side); what else has a
/// gradient is AdamW's. Returns how many there are.
int orthogonal_updates(Case& c) {
  fill_normal(c.run.model.store().gradients.view(), 3);  // of full rank, which a few tokens would not give
  c.make(spec_of(OptimizerName::muon, 0))->step({kRate, kScale, 1}, c.run.stream);
  int matrices = 0;
  c.each([&](const Parameter& parameter, ConstTensorView before) {
    if (!parameter.has_gradient()) {
      EXPECT_TRUE(same_bits(parameter.value, before)) << parameter.slices.front().name;
      return;
    }
    for (const ParameterSlice& slice : parameter.slices) {
      double squares = 0;
      double most = 0;
      for (std::int64_t i = slice.begin * parameter.columns; i < (slice.begin + slice.rows) * parameter.columns; ++i) {
        const double moved = value_at(parameter.value, i) - value_at(before, i);
        squares += moved * moved;
        most = std::max(most, std::abs(moved));
      }
      if (parameter.role == ParameterRole::matrix || parameter.role == ParameterRole::factor) {
        const double size = kRate * 0.2 * std::sqrt(static_cast<double>(std::max(slice.rows, parameter.columns)));
        const double singular =
            std::sqrt(squares / static_cast<double>(std::min(slice.rows, parameter.columns))) / size;
        EXPECT_GT(singular, 0.6) << slice.name;
        EXPECT_LT(singular, 1.25) << slice.name;
        ++matrices;
      } else {
        EXPECT_LE(most, kRate * (1 + 1e-9)) << slice.name;
      }
    }
  });
  return matrices;
}

TEST(Optimizer, MuonTakesMatricesAloneAndOrthogonalises) {
  Case c;
  EXPECT_GT(orthogonal_updates(c), 20);
}

// A and B of each projection by themselves; the weights that they add to stay.
TEST(Optimizer, MuonTakesTheFactorsOfAdapters) {
  Case c(Architecture::llama, {.rank = 3, .alpha = 6, .targets = {"q_proj", "v_proj", "down_proj"}});
  EXPECT_EQ(orthogonal_updates(c), 2 * 3 * c.run.model.config().layers);
}

// B begins with zeros, so that A's first gradient is zero: no number, had its norm to be divided by.
TEST(Optimizer, MuonLeavesWhatHasNoGradientYet) {
  Case c(Architecture::llama, {.rank = 3, .alpha = 6, .targets = {"q_proj"}});
  shoestring::fill(c.run.model.store().gradients.view(), 0.0, c.run.stream);
  c.make(spec_of(OptimizerName::muon, 0))->step({kRate, kScale, 1}, c.run.stream);
  c.each([&](const Parameter& parameter, ConstTensorView before) {
    EXPECT_TRUE(same_bits(parameter.value, before)) << parameter.slices.front().name;
  });
}

/// A parameter of `slices` matrices, with gradients.
struct Matrices {
  Matrices(std::int64_t rows, std::int64_t columns, int slices)
      : values(normal(DType::f32, {slices * rows, columns}, 1)), gradients(normal(DType::f32, values.shape(), 2)) {
    parameter.rows = slices * rows;
    parameter.columns = columns;
    for (int i = 0; i < slices; ++i) parameter.slices.push_back({std::to_string(i), i * rows, rows, {rows, columns}});
    parameter.value = values;
    parameter.grad = gradients;
  }
  Tensor values;
  Tensor gradients;
  Parameter parameter;
};

// Large matrices are shared by all workers, small ones are moved by one of them: neither shows in the bits.
TEST(Optimizer, MuonDoesNotDependOnWorkers) {
  OptimizerSpec spec = spec_of(OptimizerName::muon, 0.1);
  spec.muon_iterations = 1;
  std::vector<Tensor> first;
  for (const int count : {1, 2, 5}) {
    Matrices all[] = {{40, 24, 3}, {1024, 1024, 1}, {70, 20, 1}};
    Workers workers(count);
    Stream stream(workers);
    const auto muon = make_muon(spec, MomentFormat::f32,
                                whole_parts({&all[0].parameter, &all[1].parameter, &all[2].parameter}), count);
    for (int step = 1; step <= 2; ++step) {
      const Tensor before = copy(all[1].values);
      muon->step({kRate, kScale, step}, stream);
      EXPECT_FALSE(same_bits(all[1].values, before));
    }
    for (std::size_t i = 0; i < 3; ++i) {
      if (count == 1) first.push_back(copy(all[i].values));
      EXPECT_TRUE(same_bits(all[i].values, first[i])) << count << " workers";
    }
  }
}

// What `state` lists is all there is: another optimizer that is given it takes the same step.
TEST(Optimizer, StateIsWholeAndNamesAreUnique) {
  for (const OptimizerName name : {OptimizerName::adamw, OptimizerName::muon}) {
    Case c(Architecture::qwen3_moe);
    const OptimizerSpec spec = spec_of(name, 0.1);
    const std::unique_ptr<Optimizer> first = c.make(spec);
    first->step({kRate, kScale, 1}, c.run.stream);
    const std::unique_ptr<Optimizer> second = c.make(spec);
    std::vector<OptimizerState> from = first->state();
    std::vector<OptimizerState> to = second->state();
    ASSERT_EQ(from.size(), to.size());
    std::set<std::string> names;
    std::int64_t bytes = 0;
    for (std::size_t i = 0; i < from.size(); ++i) {
      EXPECT_EQ(from[i].name, to[i].name);
      EXPECT_TRUE(names.insert(from[i].name).second) << from[i].name;
      assign(to[i].data, from[i].data);
      bytes += from[i].data.bytes();
    }
    EXPECT_EQ(bytes, first->state_bytes());

    const Tensor start = copy(c.run.model.store().values.view());
    first->step({kRate, kScale, 2}, c.run.stream);
    const Tensor expected = copy(c.run.model.store().values.view());
    assign(c.run.model.store().values.view(), start.view());
    second->step({kRate, kScale, 2}, c.run.stream);
    EXPECT_TRUE(same_bits(c.run.model.store().values, expected));
    EXPECT_FALSE(same_bits(start, expected));
  }
}

TEST(Clip, NormOfTheMeanGradient) {
  Case c;
  double squares = 0;
  for (const Parameter* parameter : c.run.model.parameters()) {
    for (std::int64_t i = 0; i < parameter->grad.elements() && !parameter->grad.empty(); ++i) {
      squares += std::pow(value_at(parameter->grad, i), 2);
    }
  }
  const std::unique_ptr<Communicator> self = self_communicator();
  GradientNorm norm_of(c.run.model, {}, {});
  const double norm = norm_of(*self, kScale, c.run.stream);
  EXPECT_NEAR(norm, kScale * std::sqrt(squares), 1e-12 * norm);
  set_value(c.run.parameter("model.norm.weight").grad, 3, std::nan(""));
  EXPECT_TRUE(std::isnan(norm_of(*self, kScale, c.run.stream)));
}

TEST(Clip, FactorBringsTheNormToItsLimit) {
  EXPECT_EQ(clip_factor(0.5, 1), 1);
  EXPECT_EQ(clip_factor(1, 1), 1);
  EXPECT_EQ(clip_factor(4, 1), 0.25);
  EXPECT_EQ(clip_factor(4, 0), 1);
}

}  // namespace
}  // namespace shoestring::testing
