// Transformer: the memory of a rank's part of the model. A twin on a dry stream runs one micro-batch to find it.
#include "core/model/transformer.h"

#include <algorithm>
#include <utility>

#include "kernels/base/check.h"
#include "kernels/base/copy.h"
#include "kernels/base/device.h"

namespace shoestring {
namespace {

RopeSettings rope_settings(const ModelConfig& config) {
  RopeSettings settings;
  settings.dim = config.rope_dim;
  settings.theta = config.rope_theta;
  settings.style = config.latent_attention ? RopeStyle::interleaved : RopeStyle::half_split;
  if (config.rope_scaling == RopeScalingKind::none) return settings;
  settings.scaling = config.rope_scaling == RopeScalingKind::yarn ? RopeScaling::yarn : RopeScaling::llama3;
  settings.factor = config.rope_factor;
  settings.original_max_positions = config.rope_original_positions;
  settings.beta_fast = config.rope_beta_fast;
  settings.beta_slow = config.rope_beta_slow;
  if (config.latent_attention) {  // the others scale by the factor alone
    settings.mscale = config.rope_mscale;
    settings.mscale_all_dim = config.rope_mscale_all_dim;
  }
  settings.low_freq_factor = config.rope_low_frequency_factor;
  settings.high_freq_factor = config.rope_high_frequency_factor;
  return settings;
}

/// A host's tensor becomes one where `stream` works.
void move_to(Tensor& tensor, Stream& stream) {
  if (stream.device().kind == DeviceKind::cpu) return;
  Tensor there(tensor.dtype(), tensor.shape(), stream.device());
  copy(there, tensor, stream);
  stream.synchronize();
  tensor = std::move(there);
}

}  // namespace

// One micro-batch through one stage, and one evaluated: whatever a call takes, it takes here.
void Transformer::step_dry(TransformerStage& stage, const MicroBatch& batch) {
  const Boundary boundary = this->boundary();
  const auto edge = [&](bool there) {
    return there ? Tensor(boundary.dtype, boundary.shape, boundary.device) : Tensor();
  };
  const bool first = stage.parts().embedding != nullptr;
  const bool last = stage.parts().loss != nullptr;
  Tensor input = edge(!first), output = edge(!last), output_gradient = edge(!last), input_gradient = edge(!first);
  StepTally tally = this->tally();
  stage.forward(batch, input, output, tally);
  stage.backward_input(batch, output_gradient, input_gradient, tally);
  stage.backward_weight(batch, tally);
  LossSum loss;
  stage.evaluate(batch, input, &loss, output);
}

Transformer::Needs Transformer::needs(DeviceKind kind) const {
  DryMemory dry;
  const std::int64_t& now = dry.of(kind).now_bytes;
  Stream stream({.kind = kind, .dry = &dry}, options_.run.workers);
  TransformerOptions options = options_;
  if (options.trains) options.in_flight.assign(options.own_stages.size(), 1);
  Transformer twin(std::move(options));
  twin.allocate(stream);
  Needs needs;
  ModelMemory& memory = needs.memory;
  memory.parameters = twin.store_->values.bytes();
  if (options_.trains) memory.gradients = twin.store_->gradients.bytes();
  for (const auto& user : {twin.embedding_.get(), twin.further_.get()}) {
    if (user != nullptr && options_.trains && user->sums_apart()) memory.gradients += user->own_sum().bytes();
  }
  memory.tables = now - memory.parameters - memory.gradients;
  const std::int64_t before = now;
  twin.prepare();
  memory.prepared = now - before;
  for (std::size_t i = 0; options_.trains && i < twin.stages_.size(); ++i) {
    TransformerStage& stage = *twin.stages_[i];
    const std::int64_t without = now;
    const std::unique_ptr<MicroBatch> batch = twin.make_micro_batch();
    batch->fill_dry();
    memory.tables += options_.in_flight[i] * (now - without);
    twin.step_dry(stage, *batch);
    needs.saved.push_back(stage.saved_peak_bytes());
    memory.saved += options_.in_flight[i] * (stage.saved_peak_bytes() + stage.beside_bytes());
  }
  needs.scratch = twin.scratch_.peak_bytes();
  needs.turn_scratch = twin.turn_scratch_.peak_bytes();
  memory.scratch = twin.scratch_peak_bytes() + twin.growing_.capacity_bytes() + twin.turn_growing_.capacity_bytes();
  return needs;
}

ModelMemory Transformer::memory() const { return needs(device_kind()).memory; }

std::int64_t Transformer::grown_bytes() const {
  std::int64_t bytes = growing_.capacity_bytes() + turn_growing_.capacity_bytes();
  for (const auto& stage : stages_) bytes += stage->beside_bytes();
  return bytes;
}

std::int64_t Transformer::saved_peak_bytes() const {
  std::int64_t sum = 0;
  for (const auto& stage : stages_) sum += stage->saved_peak_bytes();
  return sum;
}

void Transformer::allocate(Stream& stream) {
  check(store_ == nullptr, "a model is allocated twice");
  const Device device = stream.device();
  check(device.kind != DeviceKind::cpu || stream.worker_count() == options_.run.workers,
        "memory is planned for {} workers, the stream has {}", options_.run.workers, stream.worker_count());
  options_.run.device = device.kind;
  Needs needs;
  needs.saved.resize(stages_.size());
  if (!stream.dry()) needs = this->needs(device.kind);
  stream_ = &stream;
  const std::int64_t positions = std::max<std::int64_t>(1, options_.model.max_positions);
  const DType master = master_dtype(options_.precision);
  if (stream.dry()) {
    const Shape shape{positions, options_.model.rope_dim / 2};
    rope_ = {Tensor(master, shape, device), Tensor(master, shape, device)};
  } else {
    rope_ = make_rope_table(rope_settings(options_.model), positions, master);
    for (Tensor* table : {&rope_.cosines, &rope_.sines}) move_to(*table, stream);
  }
  store_ = std::make_unique<ParameterStore>(parameters_, master_dtype(options_.precision),
                                            options_.trains ? options_.experts.gradients() : 0, device);
  scratch_ = Arena(needs.scratch, device);
  turn_scratch_ = Arena(needs.turn_scratch, device);
  for (Arena* arena : {&growing_, &turn_growing_}) *arena = Arena::growing(device);
  const bool apart = options_.experts.takes_turns;
  const StageScratch one{scratch_, growing_};
  const StageScratch other{turn_scratch_, turn_growing_};
  runtime_ = std::make_unique<StageRuntime>(StageRuntime{one, apart ? other : one, stream, objective(), next_token_});
  for (const auto& user : {embedding_.get(), further_.get()}) {
    if (options_.trains && user != nullptr) user->allocate();
  }
  for (std::size_t i = 0; i < stages_.size(); ++i) {
    stages_[i]->allocate(options_.trains ? needs.saved[i] : 0, options_.in_flight[i], *runtime_);
  }
}

}  // namespace shoestring
