#include "core/model/transformer.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "core/model/initialise.h"
#include "core/model/linear.h"
#include "kernels/base/check.h"
#include "kernels/base/copy.h"
#include "kernels/base/workers.h"
#include "kernels/fill.h"
#include "kernels/reduce.h"

namespace shoestring {

StageBlocks stage_blocks(std::int64_t layers, int stages, int stage) {
  const std::int64_t least = layers / stages;
  const std::int64_t longer = layers % stages;
  const std::int64_t begin = stage * least + std::min<std::int64_t>(stage, longer);
  return {begin, begin + least + (stage < longer ? 1 : 0)};
}

Transformer::Transformer(TransformerOptions options)
    : options_(std::move(options)), next_token_(options_.model.mtp_weight) {
  check(options_.stages >= 1 && options_.run.tokens >= 1 && options_.run.workers >= 1,
        "a model of {} stages, {} tokens", options_.stages, options_.run.tokens);
  if (options_.own_stages.empty()) {
    options_.own_stages.resize(static_cast<std::size_t>(options_.stages));
    std::iota(options_.own_stages.begin(), options_.own_stages.end(), 0);
  }
  if (options_.in_flight.empty()) options_.in_flight.assign(options_.own_stages.size(), options_.trains ? 1 : 0);
  check(options_.in_flight.size() == options_.own_stages.size(), "{} stages, micro-batches in flight of {}",
        options_.own_stages.size(), options_.in_flight.size());
  build_stages();
  if (options_.lora.rank > 0) adapt();
  collect_parameters();
}

Transformer::~Transformer() = default;

bool Transformer::owns(int stage) const {
  return std::find(options_.own_stages.begin(), options_.own_stages.end(), stage) != options_.own_stages.end();
}

StageBlocks Transformer::blocks_of(int stage) const {
  const std::vector<std::int64_t>& layers = options_.stage_layers;
  if (layers.empty()) return stage_blocks(options_.model.layers, options_.stages, stage);
  check(static_cast<int>(layers.size()) == options_.stages, "layers of {} stages for {}", layers.size(),
        options_.stages);
  const std::int64_t begin = std::accumulate(layers.begin(), layers.begin() + stage, std::int64_t{0});
  return {begin, begin + layers[static_cast<std::size_t>(stage)]};
}

void Transformer::build_stages() {
  const ModelConfig& config = options_.model;
  const bool first = owns(0);
  const bool last = owns(options_.stages - 1);
  if (last) head_ = std::make_unique<OutputHead>(config, options_.precision);
  Parameter* const tied = last && config.tie_embeddings ? &head_->weight() : nullptr;
  if (first) embedding_ = std::make_unique<TokenEmbedding>(config, tied);
  if (last && config.mtp_layers > 0) {
    further_ = std::make_unique<TokenEmbedding>(config, tied == nullptr && first ? &embedding_->table() : tied);
  }
  if (first && !last && config.tie_embeddings) copy_ = &embedding_->table();
  if (further_ && !further_->borrows()) copy_ = &further_->table();
  if (last) {
    loss_ = std::make_unique<LossHead>(config, options_.precision, rope_, *head_, further_.get(), options_.experts);
  }
  for (const int stage : options_.own_stages) {
    check(stage >= 0 && stage < options_.stages, "stage {} of {}", stage, options_.stages);
    StageParts parts;
    parts.hidden = config.hidden;
    parts.activation = activation_dtype(options_.precision);
    if (stage == 0) parts.embedding = embedding_.get();
    if (stage == options_.stages - 1) parts.loss = loss_.get();
    const StageBlocks range = blocks_of(stage);
    for (std::int64_t layer = range.begin; layer < range.end; ++layer) {
      parts.blocks.push_back(std::make_unique<Block>(config, options_.precision, layer, rope_, options_.experts));
    }
    stages_.push_back(std::make_unique<TransformerStage>(std::move(parts)));
  }
}

void Transformer::adapt() {
  for (const auto& stage : stages_) {
    for (const auto& block : stage->blocks()) {
      for (Linear* linear : block->linears()) linear->adapt(options_.lora);
    }
  }
}

void Transformer::collect_parameters() {
  const auto add = [&](const std::vector<Parameter*>& more) {
    parameters_.insert(parameters_.end(), more.begin(), more.end());
  };
  if (embedding_) add(embedding_->parameters());
  for (const auto& stage : stages_) {
    for (const auto& block : stage->blocks()) {
      add(block->parameters());
      for (Linear* linear : block->linears()) add(linear->factors());
    }
    for (MixtureOfExperts* mixture : mixtures_of(*stage)) mixtures_.push_back(mixture);
  }
  if (loss_) {
    if (further_) add(further_->parameters());
    add(loss_->parameters());
    add({&head_->weight()});
  }
  if (options_.lora.rank == 0) return;
  for (Parameter* parameter : parameters_) parameter->frozen = parameter->role != ParameterRole::factor;
}

std::vector<MixtureOfExperts*> Transformer::mixtures_of(const TransformerStage& stage) const {
  std::vector<MixtureOfExperts*> mixtures;
  for (const auto& block : stage.blocks()) {
    if (block->mixture() != nullptr) mixtures.push_back(block->mixture());
  }
  const bool last = loss_ != nullptr && &stage == stages_.back().get();
  if (last && loss_->further() != nullptr && loss_->further()->block().mixture() != nullptr) {
    mixtures.push_back(loss_->further()->block().mixture());
  }
  return mixtures;
}

std::unique_ptr<Transformer> Transformer::whole() const {
  TransformerOptions options = options_;
  options.own_stages.clear();
  options.in_flight.clear();
  options.experts = {};
  return std::make_unique<Transformer>(std::move(options));
}

std::vector<TensorAlias> Transformer::aliases() const {
  if (!loss_ || loss_->further() == nullptr) return {};
  const std::string prefix = fmt::format("model.layers.{}.", options_.model.layers);
  return {{prefix + "embed_tokens.weight", "model.embed_tokens.weight"},
          {prefix + "shared_head.head.weight", head_->weight().slices.front().name}};
}

ParameterStore& Transformer::store() {
  check(store_ != nullptr, "the model has no memory yet");
  return *store_;
}

// ---- weights

void Transformer::initialise(std::uint64_t seed,
                             const std::function<void(std::int64_t done, std::int64_t all)>& drawn) {
  std::int64_t done = 0, all = 0;
  for (const Parameter* parameter : store().parameters) all += parameter->value.elements();
  for (Parameter* parameter : store().parameters) {
    initialise_parameter(*parameter, seed, *stream_, [&](std::int64_t elements) {
      if (drawn) drawn(done += elements, all);
    });
  }
}

void Transformer::initialise_factors(std::uint64_t seed) {
  for (Parameter* parameter : store().parameters) {
    if (parameter->role == ParameterRole::factor) initialise_parameter(*parameter, seed, *stream_);
  }
}

void Transformer::zero_gradients() {
  for (Parameter* parameter : store().parameters) {
    parameter->grad_is_stale = parameter->overwrites_first && parameter->has_gradient();
    if (parameter->grad_is_stale || parameter->grad.empty()) continue;
    fill(parameter->grad, 0.0, *stream_);
  }
  for (const auto& user : {embedding_.get(), further_.get()}) {
    if (user != nullptr && user->sums_apart()) fill(user->own_sum(), 0.0, *stream_);
  }
}

// sum += what `peer` sends, while it is sent `sent`, piece by piece; either may be empty.
void Transformer::add_from(Communicator& pipeline, int peer, ConstTensorView sent, TensorView sum) {
  constexpr std::int64_t kPiece = std::int64_t{1} << 20;
  const std::int64_t elements = std::max(sent.elements(), sum.elements());
  Tensor staged(sum.empty() ? sent.dtype : sum.dtype, {std::min(kPiece, elements)}, stream_->device());
  const auto piece = [&](const auto& view, std::int64_t begin, std::int64_t count) {
    return view.reshaped({elements}).slice(0, begin, count);
  };
  for (std::int64_t begin = 0; begin < elements; begin += kPiece) {
    const std::int64_t count = std::min(kPiece, elements - begin);
    const TensorView arrived = staged.view().slice(0, 0, count);
    pipeline.group_begin();
    if (!sent.empty()) pipeline.send(piece(sent, begin, count), peer);
    if (!sum.empty()) pipeline.recv(arrived, peer);
    pipeline.group_end();
    if (!sum.empty()) axpy(piece(sum, begin, count), 1, arrived, *stream_);
  }
}

void Transformer::join_shared_gradients(Communicator& pipeline, int first, int last) {
  if (options_.lora.rank > 0) return;  // tables are frozen
  const ModelConfig& config = options_.model;
  const bool apart = first != last && (config.tie_embeddings || config.mtp_layers > 0);
  const bool three = apart && config.tie_embeddings && config.mtp_layers > 0;
  // Two terms commute: both ends add the other's to their own.
  if (apart && pipeline.rank() == first) {
    const TensorView sum = embedding_->table().grad;
    add_from(pipeline, last, sum, sum);
    if (three) add_from(pipeline, last, {}, sum);
  } else if (apart && pipeline.rank() == last) {
    const TensorView sum = config.tie_embeddings ? head_->weight().grad : further_->table().grad;
    add_from(pipeline, first, sum, sum);
    if (three) add_from(pipeline, first, further_->own_sum(), {});
  }
  for (const auto& user : {embedding_.get(), further_.get()}) {
    if (user != nullptr && user->borrows()) axpy(user->table().grad, 1, user->own_sum(), *stream_);
  }
}

void Transformer::prepare() {
  const bool counts = options_.count_precision && low_precision(options_.precision);
  if (counts && !weight_counts_) weight_counts_ = std::make_unique<StepTally>(0, 0, true, stream_->device());
  if (counts) weight_counts_->clear(*stream_);
  QuantizeCounts* const counted = counts ? weight_counts_->activations() : nullptr;
  const PrepareContext context{scratch_, *stream_, options_.experts.rank == 0 ? counted : nullptr, counted,
                               options_.trains};
  if (head_) head_->prepare(context);
  for (const auto& stage : stages_) stage->prepare(context);
  if (counts) weight_counts_->send(counts_sent_, *stream_);
}

QuantizeCounts Transformer::weight_counts() {
  if (!weight_counts_) return {};
  weight_counts_->receive(counts_sent_);
  return weight_counts_->precision.activations;
}

// Adapters count nothing.
void Transformer::prepare_trained() {
  if (options_.lora.rank == 0) return prepare();
  const PrepareContext context{scratch_, *stream_, nullptr, nullptr, options_.trains};
  for (const auto& stage : stages_) {
    for (const auto& block : stage->blocks()) {
      for (Linear* linear : block->linears()) linear->prepare_adapter(context);
    }
  }
}

// ---- running

Boundary Transformer::boundary() const {
  return {activation_dtype(options_.precision),
          {options_.run.tokens, options_.model.hidden},
          stream_ != nullptr ? stream_->device() : Device{}};
}

StepTally Transformer::tally() const {
  return {options_.model.mixtures(), options_.model.experts, options_.count_precision,
          stream_ != nullptr ? stream_->device() : Device{}};
}

std::unique_ptr<MicroBatch> Transformer::make_micro_batch() const {
  return std::make_unique<MicroBatch>(options_.run, objective().columns(), stream_->device());
}

std::unique_ptr<MicroBatch> Transformer::make_plain_micro_batch() const {
  return std::make_unique<MicroBatch>(options_.run, std::vector<TokenColumn>{}, stream_->device());
}

LossSum Transformer::evaluate(const BatchView& batch) {
  check(static_cast<int>(stages_.size()) == options_.stages, "evaluation needs every stage on this rank");
  check(options_.trains, "a model that is not trained has no memory for activations: see CachedForward");
  if (!looked_at_) looked_at_ = make_plain_micro_batch();
  looked_at_->fill(batch, 0, *stream_);
  LossSum loss;
  ConstTensorView x;
  for (const auto& stage : stages_) x = stage->evaluate(*looked_at_, x, &loss);
  return loss;
}

// ---- statistics

void Transformer::update_router_biases(ConstTensorView global_counts, double speed) {
  const Shape expected{options_.model.mixtures(), options_.model.experts};
  check(global_counts.shape == expected && global_counts.dtype == DType::i64, "router counts {}, the model's are {}",
        global_counts, expected);
  if (stream_->device().kind != DeviceKind::cpu) {
    if (router_counts_.empty()) router_counts_ = Tensor(DType::i64, expected, stream_->device());
    copy(router_counts_, global_counts, *stream_);
    global_counts = router_counts_;
  }
  for (MixtureOfExperts* mixture : mixtures_) {
    const ConstTensorView row = global_counts.slice(0, mixture->index(), 1);
    mixture->update_bias(row.reshaped({options_.model.experts}), speed, *stream_);
  }
}

}  // namespace shoestring
