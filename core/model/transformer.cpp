#include "core/model/transformer.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "core/model/initialise.h"
#include "kernels/base/check.h"
#include "kernels/base/copy.h"
#include "kernels/base/workers.h"
#include "kernels/fill.h"

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

}  // namespace

StageBlocks stage_blocks(std::int64_t layers, int stages, int stage) {
  const std::int64_t least = layers / stages;
  const std::int64_t longer = layers % stages;
  const std::int64_t begin = stage * least + std::min<std::int64_t>(stage, longer);
  return {begin, begin + least + (stage < longer ? 1 : 0)};
}

Transformer::Transformer(TransformerOptions options)
    : options_(std::move(options)), next_token_(options_.model.mtp_weight) {
  check(options_.stages >= 1 && options_.in_flight >= 1 && options_.run.tokens >= 1 && options_.run.workers >= 1,
        "a model of {} stages, {} micro-batches in flight, {} tokens", options_.stages, options_.in_flight,
        options_.run.tokens);
  if (options_.own_stages.empty()) {
    options_.own_stages.resize(static_cast<std::size_t>(options_.stages));
    std::iota(options_.own_stages.begin(), options_.own_stages.end(), 0);
  }
  build_stages();
  collect_parameters();
}

Transformer::~Transformer() = default;

bool Transformer::owns(int stage) const {
  return std::find(options_.own_stages.begin(), options_.own_stages.end(), stage) != options_.own_stages.end();
}

void Transformer::build_stages() {
  const ModelConfig& config = options_.model;
  const bool first = owns(0);
  const bool last = owns(options_.stages - 1);
  const bool shares = config.tie_embeddings || config.mtp_layers > 0;
  if (shares && first != last) {
    fail(ExitCode::bad_recipe,
         "tied embeddings and multi-token prediction need the first and the last stage on one rank: choose a V-shaped "
         "schedule or pipeline = 1");
  }
  if (last) head_ = std::make_unique<OutputHead>(config, options_.precision);
  if (first) embedding_ = std::make_unique<TokenEmbedding>(config, config.tie_embeddings ? &head_->weight() : nullptr);
  if (last) loss_ = std::make_unique<LossHead>(config, options_.precision, rope_, *head_, embedding_.get());
  for (const int stage : options_.own_stages) {
    check(stage >= 0 && stage < options_.stages, "stage {} of {}", stage, options_.stages);
    StageParts parts;
    parts.hidden = config.hidden;
    parts.activation = activation_dtype(options_.precision);
    if (stage == 0) parts.embedding = embedding_.get();
    if (stage == options_.stages - 1) parts.loss = loss_.get();
    const StageBlocks range = stage_blocks(config.layers, options_.stages, stage);
    for (std::int64_t layer = range.begin; layer < range.end; ++layer) {
      parts.blocks.push_back(std::make_unique<Block>(config, options_.precision, layer, rope_));
    }
    stages_.push_back(std::make_unique<TransformerStage>(std::move(parts)));
  }
}

void Transformer::collect_parameters() {
  const auto add = [&](const std::vector<Parameter*>& more) {
    parameters_.insert(parameters_.end(), more.begin(), more.end());
  };
  const auto add_mixture = [&](Block& block) {
    if (block.mixture() != nullptr) mixtures_.push_back(block.mixture());
  };
  if (embedding_) add(embedding_->parameters());
  for (const auto& stage : stages_) {
    for (const auto& block : stage->blocks()) {
      add(block->parameters());
      add_mixture(*block);
    }
  }
  if (!loss_) return;
  add(loss_->parameters());
  add({&head_->weight()});
  if (loss_->further() != nullptr) add_mixture(loss_->further()->block());
}

std::vector<TensorAlias> Transformer::aliases() const {
  if (!loss_ || loss_->further() == nullptr) return {};
  const std::string prefix = fmt::format("model.layers.{}.", options_.model.layers);
  return {{prefix + "embed_tokens.weight", "model.embed_tokens.weight"},
          {prefix + "shared_head.head.weight", head_->weight().slices.front().name}};
}

// ---- memory

std::int64_t Transformer::scratch_bytes() const {
  std::int64_t most = 0;
  for (const auto& stage : stages_) most = std::max(most, stage->scratch_bytes(options_.run));
  // The head's own casts happen outside of any stage.
  return head_ ? std::max(most, head_->scratch_bytes(options_.run)) : most;
}

ModelMemory Transformer::memory() const {
  ModelMemory memory;
  const DType master = master_dtype(options_.precision);
  for (const Parameter* parameter : parameters_) {
    const std::int64_t bytes = arena_bytes(master, parameter->elements());
    memory.parameters += bytes;
    if (parameter->role != ParameterRole::statistic) memory.gradients += bytes;
  }
  memory.prepared = head_ ? head_->prepared_bytes() : 0;
  for (const auto& stage : stages_) {
    memory.prepared += stage->prepared_bytes();
    memory.saved += options_.in_flight * stage->saved_bytes(options_.run);
  }
  memory.scratch = scratch_bytes();
  memory.tables = options_.model.max_positions * options_.model.rope_dim * size_bytes(master) +
                  options_.in_flight * MicroBatch::bytes(options_.run, objective().columns()) +
                  options_.model.mixtures() * options_.model.experts * size_bytes(DType::i64);
  return memory;
}

std::int64_t Transformer::saved_peak_bytes() const {
  std::int64_t sum = 0;
  for (const auto& stage : stages_) sum += stage->saved_peak_bytes();
  return sum;
}

void Transformer::allocate(Stream& stream) {
  check(store_ == nullptr, "a model is allocated twice");
  check(stream.workers().count() == options_.run.workers, "memory is planned for {} workers, the stream has {}",
        options_.run.workers, stream.workers().count());
  stream_ = &stream;
  rope_ = make_rope_table(rope_settings(options_.model), std::max<std::int64_t>(1, options_.model.max_positions),
                          master_dtype(options_.precision));
  store_ = std::make_unique<ParameterStore>(parameters_, master_dtype(options_.precision));
  scratch_ = Arena(scratch_bytes(), stream.device());
  runtime_ = std::make_unique<StageRuntime>(StageRuntime{scratch_, stream, objective(), next_token_});
  for (const auto& stage : stages_) stage->allocate(options_.run, options_.in_flight, *runtime_);
}

ParameterStore& Transformer::store() {
  check(store_ != nullptr, "the model has no memory yet");
  return *store_;
}

// ---- weights

void Transformer::initialise(std::uint64_t seed) {
  for (Parameter* parameter : store().parameters) initialise_parameter(*parameter, seed, *stream_);
}

void Transformer::zero_gradients() {
  for (Parameter* parameter : store().parameters) {
    parameter->grad_is_stale = parameter->overwrites_first;
    if (parameter->overwrites_first || parameter->grad.empty()) continue;
    fill(parameter->grad, 0.0, *stream_);
  }
}

QuantizeCounts Transformer::prepare() {
  QuantizeCounts counts;
  const PrepareContext context{scratch_, *stream_, options_.count_precision ? &counts : nullptr};
  if (head_) head_->prepare(context);
  for (const auto& stage : stages_) stage->prepare(context);
  return counts;
}

// ---- running

Boundary Transformer::boundary() const {
  return {activation_dtype(options_.precision),
          {options_.run.tokens, options_.model.hidden},
          stream_ != nullptr ? stream_->device() : Device{}};
}

StepTally Transformer::tally() const {
  return {options_.model.mixtures(), options_.model.experts, options_.count_precision};
}

std::unique_ptr<MicroBatch> Transformer::make_micro_batch() const {
  return std::make_unique<MicroBatch>(options_.run, objective().columns(), stream_->device());
}

/// The hidden state after all blocks, every stage on this rank; `loss` as TransformerStage::evaluate.
ConstTensorView Transformer::look_at(const BatchView& batch, LossSum* loss) {
  check(static_cast<int>(stages_.size()) == options_.stages, "evaluation and sampling need every stage on this rank");
  if (!looked_at_) {
    looked_at_ = std::make_unique<MicroBatch>(options_.run, std::vector<TokenColumn>{}, stream_->device());
  }
  looked_at_->fill(batch, 0, *stream_);
  ConstTensorView x;
  for (const auto& stage : stages_) x = stage->evaluate(*looked_at_, x, loss);
  return x;
}

LossSum Transformer::evaluate(const BatchView& batch) {
  LossSum loss;
  look_at(batch, &loss);
  return loss;
}

std::vector<float> Transformer::next_token_logits(std::span<const std::int32_t> tokens) {
  const std::size_t count = tokens.size();
  const std::vector<std::int32_t> starts(count, 0);
  const std::vector<std::int32_t> targets(count, -1);
  const ConstTensorView x = look_at({tokens, targets, starts, static_cast<std::int64_t>(count)}, nullptr);
  const std::int64_t vocabulary = options_.model.vocabulary;
  Arena::Scope scope(scratch_);
  const bool wide = options_.precision.policy == PrecisionPolicy::fp64;
  const TensorView logits = scratch_.take(wide ? DType::f64 : DType::f32, {1, vocabulary});
  stages_.back()->logits(*looked_at_, x, looked_at_->tokens() - 1, logits);
  std::vector<float> narrow(static_cast<std::size_t>(vocabulary));
  std::vector<double> wide_values(wide ? narrow.size() : 0);
  copy(wide ? view_of(wide_values.data(), DType::f64, logits.shape) : view_of(narrow.data(), DType::f32, logits.shape),
       logits, *stream_);
  stream_->synchronize();
  std::transform(wide_values.begin(), wide_values.end(), narrow.begin(),
                 [](double value) { return static_cast<float>(value); });
  return narrow;
}

// ---- statistics

void Transformer::update_router_biases(ConstTensorView global_counts, double speed) {
  const Shape expected{options_.model.mixtures(), options_.model.experts};
  check(global_counts.shape == expected && global_counts.dtype == DType::i64, "router counts {}, the model's are {}",
        global_counts.to_string(), expected.to_string());
  for (MixtureOfExperts* mixture : mixtures_) {
    const ConstTensorView row = global_counts.slice(0, mixture->index(), 1);
    mixture->update_bias(row.reshaped({options_.model.experts}), speed);
  }
}

}  // namespace shoestring
