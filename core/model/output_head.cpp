#include "core/model/output_head.h"

#include <algorithm>

namespace shoestring {
namespace {

// Of logits: few chunks, so the weight gradient streams rarely.
constexpr std::int64_t kChunkBytes = std::int64_t{128} << 20;
constexpr std::int64_t kLeastRows = 128;

LinearOptions head_options(const ModelConfig& config, const PrecisionSpec& precision) {
  LinearOptions options{.in = config.hidden,
                        .out = config.vocabulary,
                        .init_std = config.init_std,
                        .precision = exempt_precision(precision)};
  append_slice(options.slices, config.tie_embeddings ? "model.embed_tokens.weight" : "lm_head.weight",
               config.vocabulary, config.hidden);
  return options;
}

}  // namespace

OutputHead::OutputHead(const ModelConfig& config, const PrecisionSpec& precision)
    : vocabulary_(config.vocabulary),
      activation_(activation_dtype(precision)),
      logits_dtype_(activation_ == DType::f64 ? DType::f64 : DType::f32),
      linear_(head_options(config, precision)) {
  linear_.weight.role = ParameterRole::embedding;
}

std::int64_t OutputHead::most_rows() const {
  return std::max(kLeastRows, kChunkBytes / (vocabulary_ * size_bytes(logits_dtype_)) / 32 * 32);
}

std::int64_t OutputHead::chunk_rows(std::int64_t tokens) const {
  const std::int64_t most = most_rows();
  const std::int64_t chunks = (tokens + most - 1) / most;
  return std::min(most, ((tokens + chunks - 1) / chunks + 31) / 32 * 32);  // of nearly one size
}

void OutputHead::loss(const LossArgs& args, Saved& saved, LayerContext& context) {
  Arena::Scope scope(context.scratch);
  const std::int64_t tokens = args.x.shape[0];
  // Fewer tokens may come in larger chunks: a dry run takes the largest.
  const std::int64_t rows_most = chunk_rows(context.stream.dry() ? std::min(tokens, most_rows()) : tokens);
  const bool training = !args.dx.empty();
  const TensorView logits = context.scratch.take(logits_dtype_, {rows_most, vocabulary_});
  const TensorView losses = context.scratch.take(logits_dtype_, {rows_most});
  TensorView dlogits = logits;  // in the same memory; rows of a narrower format at the same distance
  dlogits.dtype = activation_;
  dlogits.strides[0] *= size_bytes(logits_dtype_) / size_bytes(activation_);
  for (std::int64_t begin = 0; begin < tokens; begin += rows_most) {
    const std::int64_t rows = std::min(rows_most, tokens - begin);
    const ConstTensorView x = args.x.slice(0, begin, rows);
    const TensorView chunk = logits.slice(0, 0, rows);
    const TensorView dchunk = dlogits.slice(0, 0, rows);
    linear_.forward(x, chunk, saved, context, {}, false);
    if (!context.stream.dry()) {  // an objective has no memory of its own
      args.objective.rows({.batch = args.batch,
                           .begin = begin,
                           .depth = args.depth,
                           .logits = chunk,
                           .targets = args.batch.targets(args.depth).slice(0, begin, rows),
                           .dlogits = training ? dchunk : TensorView{},
                           .losses = losses.slice(0, 0, rows)},
                          args.totals, context.stream);
    }
    if (!training) continue;
    linear_.backward_input(dchunk, args.dx.slice(0, begin, rows), saved, context);
    linear_.backward_weight_of(x, dchunk, context);
  }
}

void OutputHead::logits(ConstTensorView x, TensorView logits, Saved& saved, LayerContext& context) {
  linear_.forward(x, logits, saved, context, {}, false);
}

}  // namespace shoestring
