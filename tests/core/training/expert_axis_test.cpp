// Ranks that share the experts train what one process does, bit for bit; and what goes wrong there most often is seen.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <string>

#include "core/training/pass.h"
#include "parallel/expert_exchange.h"
#include "tests/core/model/small_models.h"
#include "tests/core/training/made_feed.h"
#include "tests/support/compare.h"
#include "tests/support/fill.h"
#include "tests/support/ranks.h"

namespace shoestring {
namespace {

using namespace shoestring::testing;

constexpr std::int64_t kSequence = 12;
constexpr std::int64_t kMicroBatch = 2;
constexpr std::int64_t kGlobalBatch = 16;
constexpr int kGroups = 4;  // of two micro-batches

/// How the ranks of a run stand.
struct Place {
  int data = 1;
  int expert = 1;
  int per_node = 0;
  bool by_source = true;
  DispatchFormat dispatch = DispatchFormat::activation;
};

PrecisionSpec precision_of(PrecisionPolicy format, const Place& place) {
  PrecisionSpec precision = policy(format);
  precision.dispatch = place.dispatch;
  return precision;
}

ExpertShare share_of(const Mesh& mesh, const Place& place, ExpertExchange& exchange) {
  return {.ranks = place.expert, .rank = mesh.at().expert, .by_source = place.by_source, .exchange = &exchange};
}

BatchPlan plan_of(int ranks) {
  PhaseSpec phase;
  phase.sequence = kSequence;
  phase.micro_batch = kMicroBatch;
  phase.global_batch = kGlobalBatch;
  return {phase, kGroups, ranks};
}

/// One rank's part of a model whose experts `place.expert` ranks share, and a pass over it.
struct ExpertRun {
  ExpertRun(Communicator& world, Architecture architecture, PrecisionPolicy format, const Place& place)
      : mesh(world, {.data = place.data, .expert = place.expert}),
        exchange(mesh.expert(), tiled_config(architecture).experts, place.per_node),
        run(tiled_config(architecture), precision_of(format, place), 1, kMicroBatch, kSequence, 1, nullptr,
            share_of(mesh, place, exchange)),
        plan(plan_of(place.data)),
        feed(run.model.config().vocabulary, kSequence, clock),
        pass(run.model, mesh, kGroups, run.stream, meter) {
    run.model.initialise(5);  // by disk names: the same under every layout
    run.model.prepare();
  }
  PassResult operator()() { return pass.run(plan, 0, feed); }

  HeldClock clock;
  Meter meter{clock};
  Mesh mesh;
  ExpertExchange exchange;
  SmallRun run;
  BatchPlan plan;
  MadeFeed feed;
  Pass pass;
};

TensorView rows_of(TensorView matrix, const ParameterSlice& slice) { return matrix.slice(0, slice.begin, slice.rows); }

/// The first disk tensor of `part` whose gradient is not that of `whole`, "" where all are.
std::string first_difference(Transformer& part, SmallRun& whole) {
  for (Parameter* parameter : part.parameters()) {
    if (parameter->role == ParameterRole::statistic) continue;
    for (const ParameterSlice& slice : parameter->slices) {
      Parameter& other = whole.parameter(slice.name);
      for (const ParameterSlice& same : other.slices) {
        if (same.name != slice.name) continue;
        if (!same_bits(rows_of(parameter->grad, slice), rows_of(other.grad, same))) return slice.name;
      }
    }
  }
  return "";
}

void expect_same(const PassResult& a, const PassResult& b) {
  EXPECT_EQ(a.loss, b.loss);
  EXPECT_EQ(a.tokens, b.tokens);
  EXPECT_EQ(a.further_loss, b.further_loss);
  EXPECT_EQ(a.balance_loss, b.balance_loss);
  EXPECT_EQ(a.precision.activations.elements, b.precision.activations.elements);
  EXPECT_EQ(a.precision.gradients.underflowed, b.precision.gradients.underflowed);
  EXPECT_TRUE(same_bits(a.router_counts, b.router_counts));
}

/// One process, the canonical sum over the same groups.
struct Alone {
  explicit Alone(PrecisionPolicy format, Architecture architecture = Architecture::deepseek_v3,
                 DispatchFormat dispatch = DispatchFormat::activation)
      : self(self_communicator()), run(*self, architecture, format, {.dispatch = dispatch}), result(run()) {}
  std::unique_ptr<Communicator> self;
  ExpertRun run;
  PassResult result;
};

constexpr Place kPlaces[] = {{2, 1}, {2, 2}, {4, 2}, {4, 4}, {4, 4, 2}};

class ExpertAxis : public ::testing::TestWithParam<PrecisionPolicy> {};

TEST_P(ExpertAxis, EveryGradientIsThatOfOneProcess) {
  Alone alone(GetParam());
  EXPECT_GT(alone.result.further_tokens, 0);
  for (const Place& place : kPlaces) {
    SCOPED_TRACE(fmt::format("data {}, expert {}, {} a node", place.data, place.expert, place.per_node));
    run_ranks(place.data, [&](Communicator& world) {
      ExpertRun part(world, Architecture::deepseek_v3, GetParam(), place);
      for (int step = 0; step < 4 / place.data; ++step) {  // nothing is left of the first
        expect_same(part(), alone.result);
        EXPECT_EQ(first_difference(part.run.model, alone.run.run), "");
      }
    });
  }
}

INSTANTIATE_TEST_SUITE_P(Formats, ExpertAxis,
                         ::testing::Values(PrecisionPolicy::fp32, PrecisionPolicy::bf16, PrecisionPolicy::fp8_block),
                         [](const auto& parameter) {
                           return parameter.param == PrecisionPolicy::fp32   ? "fp32"
                                  : parameter.param == PrecisionPolicy::bf16 ? "bf16"
                                                                             : "fp8_block";
                         });

// Softmax routing, no shared expert, six experts.
TEST(ExpertAxis, HoldsForAnotherFamily) {
  Alone alone(PrecisionPolicy::bf16, Architecture::qwen3_moe);
  run_ranks(2, [&](Communicator& world) {
    ExpertRun part(world, Architecture::qwen3_moe, PrecisionPolicy::bf16, {2, 2});
    expect_same(part(), alone.result);
    EXPECT_EQ(first_difference(part.run.model, alone.run.run), "");
  });
}

// ---- rows that travel in FP8

// They are rounded before they leave, the same where none leaves: the layout shows in no bit.
TEST(ExpertDispatch, InFp8GivesTheBitsOfOneProcess) {
  for (const PrecisionPolicy format : {PrecisionPolicy::bf16, PrecisionPolicy::fp8_block}) {
    Alone alone(format, Architecture::deepseek_v3, DispatchFormat::fp8);
    Alone plain(format);
    EXPECT_NE(alone.result.loss, plain.result.loss);
    EXPECT_NEAR(alone.result.loss, plain.result.loss, 0.0025 * plain.result.loss);
    EXPECT_NE(first_difference(alone.run.run.model, plain.run.run), "");
    for (const Place& place : {Place{2, 2, 0, true, DispatchFormat::fp8}, Place{4, 4, 2, true, DispatchFormat::fp8}}) {
      run_ranks(place.data, [&](Communicator& world) {
        ExpertRun part(world, Architecture::deepseek_v3, format, place);
        expect_same(part(), alone.result);
        EXPECT_EQ(first_difference(part.run.model, alone.run.run), "");
      });
    }
  }
}

/// Bytes that the ranks of an expert group of two send in the forward pass of one micro-batch, and the rows among them.
struct Sent {
  double bytes = 0;
  double rows = 0;
};

Sent sent_forward(DispatchFormat dispatch) {
  Sent sent;
  run_ranks(2, [&](Communicator& world) {
    ExpertRun part(world, Architecture::qwen3_moe, PrecisionPolicy::bf16, {2, 2, 0, true, dispatch});
    Transformer& model = part.run.model;
    StepTally tally = model.tally();
    const std::int64_t before = part.mesh.expert().sent_bytes();
    model.stages().front()->forward(*part.run.micro_batch(part.run.batch.view(), 0), {}, {}, tally);
    const std::int64_t half = model.config().experts / 2;
    double own[2] = {static_cast<double>(part.mesh.expert().sent_bytes() - before), 0};
    for (std::int64_t mixture = 0; mixture < model.config().mixtures(); ++mixture) {
      for (std::int64_t e = 0; e < half; ++e) {  // of the other rank
        own[1] += static_cast<double>(tally.loads_of(mixture).as<std::int64_t>()[(1 - world.rank()) * half + e]);
      }
    }
    world.all_reduce(view_of(own, DType::f64, {2}));
    if (world.rank() == 0) sent = {own[0], own[1]};
  });
  return sent;
}

// A row goes as codes and scales, with its routing weight, and comes back in BF16; counts go before, once a layer.
TEST(ExpertDispatch, BytesAreThoseOfTheFormula) {
  const ModelConfig config = tiled_config(Architecture::qwen3_moe);
  const auto hidden = static_cast<double>(config.hidden);
  const double counts = static_cast<double>(config.mixtures()) * 2 * 8 * static_cast<double>(config.experts) / 2;
  const Sent plain = sent_forward(DispatchFormat::activation);
  const Sent packed = sent_forward(DispatchFormat::fp8);
  EXPECT_GT(plain.rows, 0);
  EXPECT_EQ(plain.bytes, counts + plain.rows * (4 + 2 * hidden + 2 * hidden));
  EXPECT_EQ(packed.bytes, counts + packed.rows * (4 + hidden + hidden / 128 + 2 * hidden));
}

// ---- memory follows the loads

// All tokens go to the first rank's experts, none to the second's.
TEST(ExpertAxis, ALoadThatIsAllOnOneRankGivesTheBitsOfOneProcess) {
  const auto skew = [](Transformer& model) {
    for (Parameter* parameter : model.parameters()) {
      if (parameter->role != ParameterRole::statistic) continue;
      for (std::int64_t e = 0; e < parameter->elements() / 2; ++e) parameter->value.as<float>()[e] = 10;
    }
  };
  Alone alone(PrecisionPolicy::bf16);
  skew(alone.run.run.model);
  alone.result = alone.run();
  std::int64_t grown[2] = {};
  run_ranks(2, [&](Communicator& world) {
    ExpertRun part(world, Architecture::deepseek_v3, PrecisionPolicy::bf16, {2, 2});
    skew(part.run.model);
    expect_same(part(), alone.result);
    EXPECT_EQ(first_difference(part.run.model, alone.run.run), "");
    grown[world.rank()] = part.run.model.grown_bytes();
  });
  EXPECT_GT(grown[1], 0);  // to send rows, and the products' panels
  EXPECT_GT(grown[0], grown[1]);
}

// Gradients that are added as they come are close, take a share of the memory, and are not those of one process.
TEST(ExpertAxis, GradientsAddedAsTheyComeAreClose) {
  Alone alone(PrecisionPolicy::fp32);
  run_ranks(2, [&](Communicator& world) {
    ExpertRun part(world, Architecture::deepseek_v3, PrecisionPolicy::fp32, {2, 2, 0, false});
    const PassResult result = part();
    EXPECT_EQ(result.loss, alone.result.loss);
    EXPECT_EQ(part.run.model.store().gradients.shape().elements(), part.run.model.store().experts.end);
    EXPECT_NE(first_difference(part.run.model, alone.run.run).find(".experts."), std::string::npos);
    double distance = 0;
    double norm = 0;
    for (Parameter* parameter : part.run.model.parameters()) {
      if (!parameter->of_experts()) continue;
      for (const ParameterSlice& slice : parameter->slices) {
        Parameter& other = alone.run.run.parameter(slice.name);
        for (const ParameterSlice& same : other.slices) {
          if (same.name != slice.name) continue;
          const float* a = rows_of(parameter->grad, slice).as<float>();
          const float* b = rows_of(other.grad, same).as<float>();
          for (std::int64_t i = 0; i < slice.rows * parameter->columns; ++i) {
            distance += std::pow(static_cast<double>(a[i]) - static_cast<double>(b[i]), 2);
            norm += std::pow(static_cast<double>(b[i]), 2);
          }
        }
      }
    }
    EXPECT_GT(distance, 0);
    EXPECT_LT(distance, norm * 1e-12);
  });
}

// ---- damage on purpose: each of these must turn the comparison red

TEST(ExpertAxisDamage, AGradientScaledByTheGroupIsSeen) {
  Alone alone(PrecisionPolicy::fp32);
  run_ranks(2, [&](Communicator& world) {
    ExpertRun part(world, Architecture::deepseek_v3, PrecisionPolicy::fp32, {2, 2});
    part();
    for (Parameter* parameter : part.run.model.parameters()) {
      if (!parameter->of_experts()) continue;
      for (std::int64_t i = 0; i < parameter->elements(); ++i) parameter->grad.as<float>()[i] /= 2;  // a mean of two
    }
    EXPECT_NE(first_difference(part.run.model, alone.run.run).find(".experts."), std::string::npos);
  });
}

TEST(ExpertAxisDamage, ADroppedMicroBatchIsSeen) {
  Alone alone(PrecisionPolicy::fp32);
  run_ranks(2, [&](Communicator& world) {
    ExpertRun part(world, Architecture::deepseek_v3, PrecisionPolicy::fp32, {2, 2});
    if (world.rank() == 1) part.feed.damaged = 6;  // the one before in its place
    part();
    EXPECT_NE(first_difference(part.run.model, alone.run.run), "");
  });
}

TEST(ExpertAxisDamage, AGradientThatForgetsASourceIsSeen) {
  Alone alone(PrecisionPolicy::fp32);
  run_ranks(4, [&](Communicator& world) {
    ExpertRun part(world, Architecture::deepseek_v3, PrecisionPolicy::fp32, {4, 2});
    // The replicas' sum without the second source: what a reduction over the wrong ranks would give.
    part();
    const ParameterStore& store = part.run.model.store();
    Tensor first(DType::f32, {store.experts.end - store.experts.begin});
    CanonicalReducer wrong(part.mesh.replica(), first.shape().elements(), 1, DType::f32, part.run.stream);
    const ConstTensorView region = store.gradients_of(store.experts);
    std::memcpy(first.as<float>(), region.data, static_cast<std::size_t>(first.bytes()));
    wrong.fold(first);
    wrong.gather(part.run.model.store().expert_gradients().slice(0, 0, first.shape().elements()));
    EXPECT_NE(first_difference(part.run.model, alone.run.run).find(".experts."), std::string::npos);
  });
}

// The bias follows the loads of a whole batch: moved after each half by that half's loads it goes another way.
TEST(ExpertAxisDamage, ABiasMovedPerMicroBatchIsSeen) {
  Alone once(PrecisionPolicy::fp32);
  Alone twice(PrecisionPolicy::fp32);
  constexpr double kSpeed = 0.25;
  once.run.run.model.update_router_biases(once.result.router_counts, kSpeed);
  run_ranks(2, [&](Communicator& world) {
    ExpertRun part(world, Architecture::deepseek_v3, PrecisionPolicy::fp32, {2, 2});
    part.run.model.update_router_biases(part().router_counts, kSpeed);
    for (Parameter* parameter : part.run.model.parameters()) {
      if (parameter->role != ParameterRole::statistic) continue;
      EXPECT_TRUE(same_bits(parameter->value, once.run.run.parameter(parameter->slices.front().name).value));
    }
  });
  Tensor half = copy(twice.result.router_counts);  // loads of one micro-batch
  const StepTally tally = twice.run.run.step();
  std::memcpy(half.as<std::int64_t>(), tally.expert_loads.as<std::int64_t>(), static_cast<std::size_t>(half.bytes()));
  Tensor rest = copy(twice.result.router_counts);
  for (std::int64_t i = 0; i < rest.shape().elements(); ++i) rest.as<std::int64_t>()[i] -= half.as<std::int64_t>()[i];
  twice.run.run.model.update_router_biases(half, kSpeed);
  twice.run.run.model.update_router_biases(rest, kSpeed);
  bool differs = false;
  for (Parameter* parameter : twice.run.run.model.parameters()) {
    if (parameter->role != ParameterRole::statistic) continue;
    differs = differs || !same_bits(parameter->value, once.run.run.parameter(parameter->slices.front().name).value);
  }
  EXPECT_TRUE(differs);
}

TEST(ExpertAxis, APartWithoutItsExchangeIsRefused) {
  SmallRun run(tiled_config(Architecture::deepseek_v3), policy(PrecisionPolicy::fp32), 1, kMicroBatch, kSequence, 1,
               nullptr, {.ranks = 2, .rank = 1});
  EXPECT_THROW(run.step(), Error);
}

}  // namespace
}  // namespace shoestring
