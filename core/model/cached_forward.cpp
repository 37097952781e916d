#include "core/model/cached_forward.h"

#include <algorithm>

#include "kernels/base/check.h"
#include "kernels/base/copy.h"
#include "kernels/cross_entropy.h"

namespace shoestring {
namespace {

constexpr std::int64_t kHeadRows = 32;  // whose logits exist at a time

const StageParts& last_parts(const Transformer& model) { return model.stages().back()->parts(); }

std::int64_t layers_here(const Transformer& model) {
  std::int64_t layers = 0;
  for (const auto& stage : model.stages()) layers += std::ssize(stage->blocks());
  return layers;
}

KeyValueCache::Options cache_options(const Transformer& model, const CachedForwardOptions& options) {
  return {
      .slots = options.slots, .capacity = options.capacity, .latents = options.latents, .layers = layers_here(model)};
}

}  // namespace

CachedForward::CachedForward(Transformer& model, const CachedForwardOptions& options, ModelRanks ranks)
    : CachedForward(model, options, std::move(ranks), needs(model, options)) {}

CachedForward::CachedForward(Transformer& model, const CachedForwardOptions& options, ModelRanks ranks,
                             const Needs& needs)
    : options_(options),
      model_(model),
      ranks_(std::move(ranks)),
      cache_(model.config(), activation_dtype(model.precision()), cache_options(model, options),
             model.stream().device()),
      scratch_(needs.scratch, model.stream().device()),
      saved_arena_(needs.saved, model.stream().device()),
      saved_(saved_arena_),
      growing_(Arena::growing(model.stream().device())),
      host_(static_cast<std::size_t>(3 * options.rows)),
      places_(DType::i32, {3 * options.rows}, model.stream().device()) {
  const bool whole = model.stages().front()->parts().embedding != nullptr && last_parts(model).loss != nullptr &&
                     layers_here(model) == model.config().layers;
  check(ranks_.pipeline != nullptr || whole || model.stream().dry(),
        "generation by a part of a model needs the ranks of the others");
  check(options.slots >= 1 && options.rows >= 1 && options.capacity >= 1 &&
            options.capacity <= model.config().max_positions,
        "generation in {} slots of {} tokens, {} at a time, by a model of {} positions", options.slots,
        options.capacity, options.rows, model.config().max_positions);
  const DType activation = activation_dtype(model.precision());
  const Device device = model.stream().device();
  const std::int64_t hidden = model.config().hidden;
  for (Tensor& stream : streams_) stream = Tensor(activation, {options.rows, hidden}, device);
  chosen_ = Tensor(activation, {kHeadRows, hidden}, device);
  logits_ = Tensor(activation == DType::f64 ? DType::f64 : DType::f32, {kHeadRows, model.config().vocabulary}, device);
}

// A call of as many rows as there may be, on a twin of the model.
CachedForward::Needs CachedForward::needs(const Transformer& model, const CachedForwardOptions& options) {
  DryMemory dry;
  const DeviceKind kind = model.device_kind();
  Stream stream({.kind = kind, .dry = &dry}, model.options().run.workers);
  TransformerOptions untrained = model.options();
  untrained.trains = false;
  untrained.in_flight.clear();
  Transformer twin(std::move(untrained));
  twin.allocate(stream);
  twin.prepare();
  const std::int64_t before = dry.of(kind).now_bytes;
  CachedForward forward(twin, options, {}, Needs{});
  forward.hidden_ = forward.streams_[0].view();
  std::int64_t layer = 0;
  for (const auto& stage : twin.stages()) {
    forward.run_blocks(*stage, layer, options.rows);
    layer += std::ssize(stage->blocks());
  }
  forward.head(std::vector<std::int32_t>(kHeadRows));
  Needs needs{.scratch = forward.scratch_.peak_bytes(), .saved = forward.saved_arena_.peak_bytes()};
  needs.all = dry.of(kind).now_bytes - before + needs.scratch + needs.saved + forward.growing_.capacity_bytes() +
              forward.saved_.beside_bytes();
  return needs;
}

std::int64_t CachedForward::bytes(const Transformer& model, const CachedForwardOptions& options) {
  return needs(model, options).all;
}

void CachedForward::append(std::span<const Piece> pieces) {
  const std::int64_t most = options_.rows;
  std::int64_t rows = 0;
  std::vector<std::int64_t> lengths(static_cast<std::size_t>(options_.slots));
  for (std::int64_t slot = 0; slot < options_.slots; ++slot) {
    lengths[static_cast<std::size_t>(slot)] = cache_.length(slot);
  }
  for (const Piece& piece : pieces) {
    std::int64_t& length = lengths.at(static_cast<std::size_t>(piece.slot));
    const auto count = static_cast<std::int64_t>(piece.tokens.size());
    check(rows + count <= most && length + count <= options_.capacity,
          "{} more tokens after {} of {} rows and {} of {} places of slot {}", count, rows, most, length,
          options_.capacity, piece.slot);
    for (const std::int32_t id : piece.tokens) {
      check(id >= 0 && id < model_.config().vocabulary, "token {} of {}", id, model_.config().vocabulary);
      host_[static_cast<std::size_t>(rows)] = id;
      host_[static_cast<std::size_t>(most + rows)] = static_cast<std::int32_t>(length++);
      host_[static_cast<std::size_t>(2 * most + rows++)] = static_cast<std::int32_t>(piece.slot);
    }
  }
  if (rows == 0) return;
  copy(places_.view(), view_of(static_cast<const void*>(host_.data()), DType::i32, {3 * most}), model_.stream());
  anyone_appends(true);
  run_stages(rows);
  for (std::int64_t slot = 0; slot < options_.slots; ++slot) {
    cache_.set_length(slot, lengths[static_cast<std::size_t>(slot)]);
  }
}

void CachedForward::join() {
  while (anyone_appends(false)) run_stages(0);
}

/// Whether one of the ranks that share the experts, this one included, appends something now.
bool CachedForward::anyone_appends(bool own) {
  if (ranks_.experts == nullptr) return own;
  double any = own ? 1 : 0;
  ranks_.experts->all_reduce(view_of(&any, DType::f64, {1}), Reduction::max);
  return any != 0;
}

bool CachedForward::is_here(std::size_t stage) const {
  return ranks_.pipeline == nullptr || ranks_.rank_of_stage[stage] == ranks_.pipeline->rank();
}

/// The rows through all stages, each where it is. No rows: through the mixtures of this rank, for the others' sake.
void CachedForward::run_stages(std::int64_t rows) {
  const std::size_t count = ranks_.pipeline == nullptr ? model_.stages().size() : ranks_.rank_of_stage.size();
  hidden_ = streams_[0].view().slice(0, 0, rows);
  auto own = model_.stages().begin();
  std::int64_t layer = 0;
  for (std::size_t stage = 0; stage < count; ++stage) {
    if (!is_here(stage)) continue;
    if (rows > 0 && stage > 0 && !is_here(stage - 1)) ranks_.pipeline->recv(hidden_, ranks_.rank_of_stage[stage - 1]);
    run_blocks(**own, layer, rows);
    layer += std::ssize((*own++)->blocks());
    if (rows == 0 || stage + 1 == count || is_here(stage + 1)) continue;
    model_.stream().synchronize();
    ranks_.pipeline->send(hidden_, ranks_.rank_of_stage[stage + 1]);
  }
}

void CachedForward::run_blocks(const TransformerStage& stage, std::int64_t first_layer, std::int64_t rows) {
  const auto place = [&](std::int64_t part) {
    return ConstTensorView(places_.view().slice(0, part * options_.rows, rows));
  };
  const TokenLayout layout{.positions = place(1), .segment_start = {}, .sequence_starts = {}};
  LayerContext context{layout, scratch_, model_.stream(), false};
  context.growing = &growing_;
  if (stage.parts().embedding != nullptr && rows > 0) stage.parts().embedding->forward(place(0), hidden_, context);
  for (std::int64_t i = 0; i < std::ssize(stage.blocks()); ++i) {
    const CachedRows cached = cache_.rows(first_layer + i, place(2));
    context.cached = &cached;
    saved_.clear();
    const bool in_first = hidden_.data == streams_[0].view().data;
    const TensorView y = streams_[in_first ? 1 : 0].view().slice(0, 0, rows);
    Block& block = *stage.blocks()[static_cast<std::size_t>(i)];
    if (rows > 0) {
      block.forward(hidden_, y, saved_, context);
    } else if (block.mixture() != nullptr) {
      block.mixture()->forward(hidden_, y, saved_, context);
    }
    hidden_ = y;
  }
}

/// Logits of at most kHeadRows rows, on every rank of the pipeline.
TensorView CachedForward::head(std::span<const std::int32_t> rows) {
  Stream& stream = model_.stream();
  const auto count = static_cast<std::int64_t>(rows.size());
  const TensorView logits = logits_.view().slice(0, 0, count);
  if (LossHead* loss = last_parts(model_).loss; loss != nullptr) {
    for (std::int64_t i = 0; i < count; ++i) {
      const std::int32_t row = rows[static_cast<std::size_t>(i)];
      check(row >= 0 && !hidden_.empty() && row < hidden_.shape[0], "logits of row {}, which the last call had not",
            row);
      copy(chosen_.view().slice(0, i, 1), hidden_.slice(0, row, 1), stream);
    }
    const TokenLayout nowhere;
    LayerContext context{nowhere, scratch_, stream, false};
    saved_.clear();
    loss->logits(chosen_.view().slice(0, 0, count), logits, saved_, context);
  }
  if (ranks_.pipeline != nullptr) {
    stream.synchronize();
    ranks_.pipeline->broadcast(logits, ranks_.rank_of_stage.back());
  }
  return logits;
}

std::vector<double> CachedForward::choose(std::span<const std::int32_t> rows, const Choose& choose) {
  std::vector<double> all;
  Stream& stream = model_.stream();
  std::vector<std::int32_t> chosen;
  for (std::size_t begin = 0; begin < rows.size(); begin += kHeadRows) {
    const auto count = static_cast<std::int64_t>(std::min<std::size_t>(kHeadRows, rows.size() - begin));
    const TensorView logits = head(rows.subspan(begin, static_cast<std::size_t>(count)));
    chosen.clear();
    for (std::int64_t i = 0; i < count; ++i) {
      chosen.push_back(choose(begin + static_cast<std::size_t>(i), in_host_memory(logits.slice(0, i, 1))));
    }
    Arena::Scope scope(scratch_);
    const TensorView losses = scratch_.take(logits.dtype, {count});
    const TensorView targets = scratch_.take(DType::i32, {count});
    copy(targets, view_of(static_cast<const void*>(chosen.data()), DType::i32, {count}), stream);
    cross_entropy({.loss = losses,
                   .lse = {},
                   .loss_sum = {},
                   .count = {},
                   .dlogits = {},
                   .logits = logits,
                   .targets = targets,
                   .stream = stream});
    const bool is_wide = losses.dtype == DType::f64;
    std::vector<double> wide(static_cast<std::size_t>(count));
    std::vector<float> narrow(wide.size());
    copy(view_of(is_wide ? static_cast<void*>(wide.data()) : narrow.data(), losses.dtype, {count}), losses, stream);
    stream.synchronize();
    if (!is_wide) std::copy(narrow.begin(), narrow.end(), wide.begin());
    for (const double loss : wide) all.push_back(-loss);
  }
  return all;
}

/// A row of logits in host memory and single precision, until the next call.
std::span<const float> CachedForward::in_host_memory(TensorView row) {
  const auto vocabulary = static_cast<std::size_t>(row.elements());
  row_.resize(vocabulary);
  if (row.dtype == DType::f32) {
    copy(view_of(row_.data(), DType::f32, row.shape), row, model_.stream());
    model_.stream().synchronize();
    return row_;
  }
  std::vector<double> wide(vocabulary);
  copy(view_of(wide.data(), DType::f64, row.shape), row, model_.stream());
  model_.stream().synchronize();
  std::transform(wide.begin(), wide.end(), row_.begin(), [](double value) { return static_cast<float>(value); });
  return row_;
}

std::vector<std::vector<float>> CachedForward::logits(std::span<const std::int32_t> rows) {
  std::vector<std::vector<float>> all;
  choose(rows, [&](std::size_t, std::span<const float> row) {
    all.emplace_back(row.begin(), row.end());
    return 0;
  });
  return all;
}

std::vector<double> CachedForward::log_probabilities(std::span<const std::int32_t> rows,
                                                     std::span<const std::int32_t> targets) {
  check(rows.size() == targets.size(), "{} targets of {} rows", targets.size(), rows.size());
  return choose(rows, [&](std::size_t index, std::span<const float>) { return targets[index]; });
}

void CachedForward::keep(std::int64_t slot, std::int64_t length) {
  check(length <= cache_.length(slot), "slot {} holds {} tokens, not {}", slot, cache_.length(slot), length);
  cache_.set_length(slot, length);
}

}  // namespace shoestring
