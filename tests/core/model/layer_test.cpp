// Every layer by itself in double: input gradient and every weight's gradient against central differences.
#include "core/model/layer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <numeric>

#include "core/model/attention_gqa.h"
#include "core/model/attention_mla.h"
#include "core/model/block.h"
#include "core/model/feed_forward.h"
#include "core/model/linear.h"
#include "core/model/loss_head.h"
#include "core/model/mixture_of_experts.h"
#include "tests/core/model/small_models.h"
#include "tests/support/fill.h"
#include "tests/support/gradient.h"

namespace shoestring::testing {
namespace {

constexpr std::int64_t kTokens = 20;
constexpr std::int64_t kSequences = 2;
constexpr GradientCheck kCheck{.step = 1e-4, .tolerance = 3e-7, .samples = 12, .seed = 5};

/// Memory and tokens for one layer.
class Bench {
 public:
  explicit Bench(const ModelConfig& config)
      : stream(workers),
        batch(config.vocabulary, kSequences, kTokens / kSequences, 3),
        micro_batch({kTokens, kSequences, 1}, {}, {}),
        tally(config.mixtures(), config.experts, false),
        rope(make_rope_table({.dim = config.rope_dim,
                              .theta = 100,
                              .style = config.latent_attention ? RopeStyle::interleaved : RopeStyle::half_split},
                             64, DType::f64)) {
    micro_batch.fill(batch.view(), 0, stream);
  }

  void allocate(const std::vector<Parameter*>& parameters) {
    store = std::make_unique<ParameterStore>(parameters, DType::f64);
    std::uint64_t seed = 100;
    for (Parameter* parameter : store->parameters) {
      fill_normal(parameter->value, ++seed, parameter->role == ParameterRole::statistic ? 0.01 : 0.3);
    }
    arena = Arena::growing({});
    scratch = Arena::growing({});
    saved = std::make_unique<Saved>(arena);
  }
  void clear() {
    saved->clear();
    std::fill_n(store->gradients.as<double>(), store->gradients.shape().elements(), 0.0);
  }
  LayerContext context() { return {micro_batch.layout(), scratch, stream, true, &tally}; }
  /// Of the forwards since the last call.
  double balance_loss() {
    const double sum = tally.balance_loss();
    std::fill(tally.balance_losses.begin(), tally.balance_losses.end(), 0.0);
    return sum;
  }

  Workers workers{1};
  Stream stream;
  SmallBatch batch;
  MicroBatch micro_batch;
  StepTally tally;
  RopeTable rope;
  std::unique_ptr<ParameterStore> store;
  Arena arena, scratch;
  std::unique_ptr<Saved> saved;
};

/// What the calls of a step take, of `saved` and scratch, where memory is only counted.
struct Taken {
  std::int64_t saved;
  std::int64_t scratch;
};
Taken taken_dry(Bench& bench, Layer& layer, std::int64_t hidden) {
  DryMemory dry;
  Stream stream({.dry = &dry}, 1);
  Arena arena(0, stream.device()), scratch(0, stream.device());
  Saved saved(arena);
  const Tensor x(DType::f64, {kTokens, hidden}, stream.device());
  Tensor y(DType::f64, {kTokens, hidden}, stream.device());
  MicroBatch batch({kTokens, kSequences, 1}, {}, stream.device());
  batch.fill_dry();
  LayerContext context{batch.layout(), scratch, stream, true, &bench.tally};
  layer.prepare({scratch, stream});
  layer.forward(x, y, saved, context);
  layer.backward_input(x, y, saved, context);
  layer.backward_weight(saved, context);
  return {arena.used_bytes(), scratch.peak_bytes()};
}

/// Loss = projection of the output, plus what the layer adds by itself (`extra`).
void check_layer(Bench& bench, Layer& layer, std::int64_t hidden, const std::function<double()>& extra = {}) {
  std::vector<Parameter*> parameters = layer.parameters();
  for (Linear* linear : layer.linears()) {
    for (Parameter* factor : linear->factors()) parameters.push_back(factor);
  }
  bench.allocate(parameters);
  const Taken planned = taken_dry(bench, layer, hidden);
  bench.arena = Arena(planned.saved, {});
  bench.scratch = Arena(planned.scratch, {});
  Tensor x = normal(DType::f64, {kTokens, hidden}, 1);
  const Tensor dy = normal(DType::f64, {kTokens, hidden}, 2);
  Tensor y(DType::f64, {kTokens, hidden});
  Tensor dx(DType::f64, {kTokens, hidden});
  LayerContext context = bench.context();
  layer.prepare({bench.scratch, bench.stream});
  const auto loss = [&] {
    bench.saved->clear();
    layer.forward(x, y, *bench.saved, context);
    return projection(y, dy) + (extra ? extra() : 0.0);
  };
  loss();
  bench.clear();
  layer.forward(x, y, *bench.saved, context);
  if (extra) extra();
  layer.backward_input(dy, dx, *bench.saved, context);
  layer.backward_weight(*bench.saved, context);
  EXPECT_EQ(bench.arena.used_bytes(), planned.saved);
  EXPECT_EQ(bench.scratch.used_bytes(), 0);
  const Tensor gradients = copy(bench.store->gradients);
  EXPECT_TRUE(gradient_matches(loss, x, dx, kCheck)) << "input";
  for (Parameter* parameter : bench.store->parameters) {
    if (!parameter->has_gradient()) continue;
    const auto offset = parameter->grad.as<double>() - bench.store->gradients.as<double>();
    const ConstTensorView analytic =
        view_of(static_cast<const void*>(gradients.as<double>() + offset), DType::f64, parameter->grad.shape);
    EXPECT_TRUE(gradient_matches(loss, parameter->value, analytic, kCheck)) << parameter->slices.front().name;
  }
}

TEST(Layer, FeedForward) {
  const ModelConfig config = small_config(Architecture::llama);
  Bench bench(config);
  FeedForward layer({config.hidden, config.feed_forward, 0.1, "mlp.", policy(PrecisionPolicy::fp64)});
  check_layer(bench, layer, config.hidden);
}

TEST(Layer, AttentionGqa) {
  for (const Architecture architecture : {Architecture::llama, Architecture::qwen2, Architecture::qwen3}) {
    const ModelConfig config = small_config(architecture);
    Bench bench(config);
    AttentionGqa layer(config, policy(PrecisionPolicy::fp64), "self_attn.", bench.rope);
    check_layer(bench, layer, config.hidden);
  }
}

/// Adapters on the named projections; what they add to is frozen.
void adapt(Layer& layer, const std::vector<std::string>& targets) {
  for (Linear* linear : layer.linears()) linear->adapt({.rank = 3, .alpha = 7, .targets = targets});
  for (Parameter* parameter : layer.parameters()) parameter->frozen = true;
}

TEST(Layer, AdaptersOfAttention) {
  const std::vector<std::vector<std::string>> choices = {
      {"q_proj", "k_proj", "v_proj", "o_proj"}, {"q_proj", "v_proj"}, {"o_proj"}};
  for (const std::vector<std::string>& targets : choices) {
    const ModelConfig config = small_config(Architecture::qwen2);
    Bench bench(config);
    AttentionGqa layer(config, policy(PrecisionPolicy::fp64), "self_attn.", bench.rope);
    adapt(layer, targets);
    check_layer(bench, layer, config.hidden);
  }
}

TEST(Layer, AdaptersOfFeedForward) {
  const std::vector<std::vector<std::string>> choices = {
      {"gate_proj", "up_proj", "down_proj"}, {"up_proj"}, {"down_proj"}};
  for (const std::vector<std::string>& targets : choices) {
    const ModelConfig config = small_config(Architecture::llama);
    Bench bench(config);
    FeedForward layer({config.hidden, config.feed_forward, 0.1, "mlp.", policy(PrecisionPolicy::fp64)});
    adapt(layer, targets);
    check_layer(bench, layer, config.hidden);
  }
}

TEST(Layer, AttentionMla) {
  for (const std::int64_t query_latent : {std::int64_t{0}, std::int64_t{18}}) {
    ModelSpec spec = small_spec(Architecture::deepseek_v3);
    spec.q_lora_rank = query_latent;
    const ModelConfig config = resolve_model(spec, 0, 0);
    Bench bench(config);
    AttentionMla layer(config, policy(PrecisionPolicy::fp64), "self_attn.", bench.rope);
    check_layer(bench, layer, config.hidden);
  }
}

TEST(Layer, MixtureOfExperts) {
  for (const Architecture architecture : {Architecture::qwen3_moe, Architecture::deepseek_v3}) {
    for (const bool normalize : {true, false}) {
      ModelSpec spec = small_spec(architecture);
      spec.normalize_weights = normalize;
      const ModelConfig config = resolve_model(spec, 0, 0);
      Bench bench(config);
      MixtureOfExperts layer(config, policy(PrecisionPolicy::fp64), 1, "mlp.");
      int forwards = 0;
      check_layer(bench, layer, config.hidden, [&] {
        ++forwards;
        return bench.balance_loss();
      });
      EXPECT_GT(forwards, 2);
      const auto load = [&](std::int64_t mixture) {
        const ConstTensorView loads = bench.tally.loads_of(mixture);
        return std::accumulate(loads.as<std::int64_t>(), loads.as<std::int64_t>() + config.experts, std::int64_t{0});
      };
      EXPECT_EQ(load(0), 0);  // another layer's
      EXPECT_EQ(load(1), forwards * kTokens * config.experts_per_token);
    }
  }
}

TEST(Layer, AdaptersOfLatentAttention) {
  const std::vector<std::vector<std::string>> choices = {
      {"q_proj", "q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj", "o_proj"}, {"q_b_proj"}, {"kv_b_proj"}};
  for (const std::int64_t query_latent : {std::int64_t{0}, std::int64_t{18}}) {
    for (const std::vector<std::string>& targets : choices) {
      ModelSpec spec = small_spec(Architecture::deepseek_v3);
      spec.q_lora_rank = query_latent;
      const ModelConfig config = resolve_model(spec, 0, 0);
      Bench bench(config);
      AttentionMla layer(config, policy(PrecisionPolicy::fp64), "self_attn.", bench.rope);
      adapt(layer, targets);
      check_layer(bench, layer, config.hidden);
    }
  }
}

// Routed ones and, where there is one, the shared one.
TEST(Layer, AdaptersOfExperts) {
  const std::vector<std::vector<std::string>> choices = {
      {"gate_proj", "up_proj", "down_proj"}, {"up_proj"}, {"down_proj"}, {"q_proj"}};
  for (const Architecture architecture : {Architecture::qwen3_moe, Architecture::deepseek_v3}) {
    for (const std::vector<std::string>& targets : choices) {
      const ModelConfig config = small_config(architecture);
      Bench bench(config);
      MixtureOfExperts layer(config, policy(PrecisionPolicy::fp64), 1, "mlp.");
      adapt(layer, targets);
      check_layer(bench, layer, config.hidden, [&] { return bench.balance_loss(); });
    }
  }
}

TEST(Layer, Block) {
  const ModelConfig config = small_config(Architecture::qwen3);
  Bench bench(config);
  Block layer(config, policy(PrecisionPolicy::fp64), 0, bench.rope);
  check_layer(bench, layer, config.hidden);
}

/// The loss head as a function of the hidden state: final norm, head, further token; the embedding through the latter.
TEST(Layer, LossHeadAndMultiTokenPrediction) {
  const ModelConfig config = small_config(Architecture::deepseek_v3);
  const PrecisionSpec spec = policy(PrecisionPolicy::fp64);
  Bench bench(config);
  OutputHead head(config, spec);
  TokenEmbedding embedding(config, nullptr);
  LossHead layer(config, spec, bench.rope, head, &embedding);
  const NextToken objective(config.mtp_weight);
  std::vector<Parameter*> parameters = layer.parameters();
  parameters.push_back(&head.weight());
  for (Parameter* parameter : embedding.parameters()) parameters.push_back(parameter);
  bench.allocate(parameters);
  Tensor x = normal(DType::f64, {kTokens, config.hidden}, 1);
  Tensor dx(DType::f64, {kTokens, config.hidden});
  LayerContext context = bench.context();
  layer.prepare({bench.scratch, bench.stream});
  head.prepare({bench.scratch, bench.stream});
  const auto loss = [&] {
    bench.saved->clear();
    ObjectiveSums sums;
    layer.forward(x, bench.micro_batch, objective, bench.tally.totals(sums), *bench.saved, context);
    return sums.main.loss + config.mtp_weight * sums.further.loss + bench.balance_loss();
  };
  bench.clear();
  loss();
  layer.backward_input(dx, *bench.saved, context);
  layer.backward_weight(bench.micro_batch, *bench.saved, context);
  const Tensor gradients = copy(bench.store->gradients);
  EXPECT_TRUE(gradient_matches(loss, x, dx, kCheck)) << "input";
  for (Parameter* parameter : bench.store->parameters) {
    if (parameter->role == ParameterRole::statistic) continue;
    const auto offset = parameter->grad.as<double>() - bench.store->gradients.as<double>();
    const ConstTensorView analytic =
        view_of(static_cast<const void*>(gradients.as<double>() + offset), DType::f64, parameter->grad.shape);
    EXPECT_TRUE(gradient_matches(loss, parameter->value, analytic, kCheck)) << parameter->slices.front().name;
  }
}

}  // namespace
}  // namespace shoestring::testing
