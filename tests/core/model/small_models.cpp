#include "tests/core/model/small_models.h"

#include <cmath>

#include "kernels/base/check.h"
#include "kernels/base/random.h"
#include "tests/support/fill.h"

namespace shoestring::testing {

ModelSpec small_spec(Architecture architecture) {
  ModelSpec spec;
  spec.architecture = architecture;
  spec.vocabulary = 61;
  spec.layers = 2;
  spec.hidden = 24;
  spec.heads = 4;
  spec.kv_heads = 2;
  spec.feed_forward = 40;
  spec.max_positions = 64;
  spec.init_std = 0.2;
  spec.norm_eps = 1e-6;
  if (architecture == Architecture::qwen3 || architecture == Architecture::qwen3_moe) spec.head_dim = 10;
  if (architecture == Architecture::llama) {
    spec.rope_scaling = RopeScalingKind::llama3;
    spec.rope_factor = 8;
    spec.rope_original_positions = 16;
  }
  if (architecture == Architecture::qwen2) spec.tie_embeddings = true;
  if (architecture == Architecture::qwen3_moe) {
    spec.experts = 6;
    spec.experts_per_token = 2;
    spec.expert_feed_forward = 14;
    spec.balance_loss = 0.01;
  }
  const bool v2 = architecture == Architecture::deepseek_v2;
  if (v2 || architecture == Architecture::deepseek_v3) {
    spec.kv_heads = 0;
    spec.layers = 3;
    spec.q_lora_rank = 18;
    spec.kv_lora_rank = 16;
    spec.qk_nope_head_dim = 10;
    spec.qk_rope_head_dim = 6;
    spec.v_head_dim = 8;
    spec.experts = 8;
    spec.experts_per_token = 3;
    spec.shared_experts = 1;
    spec.expert_feed_forward = 14;
    spec.dense_layers = 1;
    spec.expert_groups = 4;
    spec.expert_topk_groups = 2;
    spec.routed_scale = 2.5;
    spec.balance_loss = 0.01;
    spec.mtp_layers = v2 ? 0 : 1;
    spec.rope_scaling = RopeScalingKind::yarn;
    spec.rope_factor = 4;
    spec.rope_original_positions = 16;
    spec.rope_mscale = 1;
    spec.rope_mscale_all_dim = 1;
  }
  return spec;
}

ModelConfig small_config(Architecture architecture) { return resolve_model(small_spec(architecture), 0, 0); }

ModelConfig tiled_config(Architecture architecture) {
  ModelSpec spec = small_spec(architecture);
  spec.vocabulary = 256;
  spec.hidden = 256;
  spec.feed_forward = 384;
  spec.max_positions = 256;
  spec.init_std = 0.05;
  if (spec.kv_lora_rank > 0) {
    spec.layers = 2;
    spec.q_lora_rank = 128;
    spec.kv_lora_rank = 128;
    spec.qk_nope_head_dim = 32;
    spec.qk_rope_head_dim = 16;
    spec.v_head_dim = 32;
  } else {
    spec.head_dim = 64;
  }
  if (spec.experts > 0) spec.expert_feed_forward = 128;
  return resolve_model(spec, 0, 0);
}

SmallBatch::SmallBatch(std::int64_t vocabulary, std::int64_t sequences, std::int64_t sequence, std::uint64_t seed)
    : sequence_length(sequence) {
  const Random random(seed, Purpose::test);
  const std::int64_t tokens = sequences * sequence;
  std::int64_t document = 0;
  for (std::int64_t t = 0; t < tokens; ++t) {
    const auto index = static_cast<std::uint64_t>(t);
    const bool begins = t % sequence == 0 || random.below(2 * index, 5) == 0;
    if (begins) document = t;
    inputs.push_back(static_cast<std::int32_t>(random.below(2 * index + 1, static_cast<std::uint64_t>(vocabulary))));
    segment_start.push_back(static_cast<std::int32_t>(document));
  }
  for (std::int64_t t = 0; t < tokens; ++t) {
    const auto next = static_cast<std::size_t>(t + 1);
    const bool last_of_sequence = (t + 1) % sequence == 0;
    const bool same = !last_of_sequence && segment_start[next] <= t;
    std::int32_t target = -1;  // the end of a document that ends inside the sequence
    if (same) target = inputs[next];
    if (last_of_sequence) target = 5;  // goes on beyond the sequence
    targets.push_back(target);
  }
}

namespace {

/// As initialise_parameter does, but uniform, which costs a tenth; a function of the first disk name.
void fill_weights(Parameter& parameter) {
  std::uint64_t seed = 1;
  for (const char c : parameter.slices.front().name) seed = seed * 131 + static_cast<unsigned char>(c);
  if (parameter.init_std > 0) {
    const double half = parameter.init_std * std::sqrt(3.0);
    fill_uniform(parameter.value, seed, -half, half);
  } else {
    fill_constant(parameter.value, parameter.init_value);
  }
}

}  // namespace

SmallRun::SmallRun(const ModelConfig& config, const PrecisionSpec& precision, int stages, std::int64_t sequences,
                   std::int64_t sequence, int workers_count, const Objective* objective, const ExpertShare& share,
                   const LoraSpec& lora)
    : workers(workers_count),
      stream(workers),
      batch(config.vocabulary, sequences, sequence, 3),
      model({.model = config,
             .precision = precision,
             .run = {sequences * sequence, sequences, workers_count},
             .stages = stages,
             .own_stages = {},
             .in_flight = std::vector<int>(static_cast<std::size_t>(stages), 2),
             .experts = share,
             .lora = lora,
             .objective = objective}) {
  model.allocate(stream);
  for (Parameter* parameter : model.parameters()) fill_weights(*parameter);
  model.prepare();
}

std::unique_ptr<MicroBatch> SmallRun::micro_batch(const BatchView& view, int number) {
  std::unique_ptr<MicroBatch> made = model.make_micro_batch();
  made->fill(view, number, stream);
  return made;
}

StepTally SmallRun::step(const std::function<void(std::size_t, int)>& done) {
  model.zero_gradients();
  StepTally tally = model.tally();
  const std::unique_ptr<MicroBatch> tokens = micro_batch(batch.view(), 0);
  std::vector<Tensor> activations;
  std::vector<Tensor> gradients;
  const Boundary boundary = model.boundary();
  const std::size_t stages = model.stages().size();
  for (std::size_t s = 0; s + 1 < stages; ++s) {
    activations.emplace_back(boundary.dtype, boundary.shape);
    gradients.emplace_back(boundary.dtype, boundary.shape);
  }
  for (std::size_t s = 0; s < stages; ++s) {
    const ConstTensorView input = s == 0 ? ConstTensorView{} : ConstTensorView(activations[s - 1]);
    const TensorView output = s + 1 == stages ? TensorView{} : TensorView(activations[s]);
    model.stages()[s]->forward(*tokens, input, output, tally);
  }
  for (std::size_t s = stages; s-- > 0;) {
    const ConstTensorView dy = s + 1 == stages ? ConstTensorView{} : ConstTensorView(gradients[s]);
    const TensorView dx = s == 0 ? TensorView{} : TensorView(gradients[s - 1]);
    model.stages()[s]->backward_input(*tokens, dy, dx, tally);
  }
  for (std::size_t s = stages; s-- > 0;) {
    std::function<void(int)> done_here;
    if (done) done_here = [&](int part) { done(s, part); };
    model.stages()[s]->backward_weight(*tokens, tally, done_here);
  }
  model.join_shared_gradients(*self_communicator(), 0, 0);
  return tally;
}

double SmallRun::total_loss() {
  const StepTally tally = step();
  const ObjectiveSums& sums = tally.objective;
  return sums.main.loss + model.config().mtp_weight * sums.further.loss + tally.balance_loss();
}

Parameter& SmallRun::parameter(const std::string& slice_name) {
  for (Parameter* parameter : model.parameters()) {
    for (const ParameterSlice& slice : parameter->slices) {
      if (slice.name == slice_name) return *parameter;
    }
  }
  fail(ExitCode::bug, "no parameter {}", slice_name);
}

PrecisionSpec policy(PrecisionPolicy policy) {
  PrecisionSpec spec;
  spec.policy = policy;
  return spec;
}

}  // namespace shoestring::testing
