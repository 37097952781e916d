#include "core/model/attention_mla.h"

#include <algorithm>

#include "core/model/key_value_cache.h"
#include "kernels/attention.h"
#include "kernels/base/check.h"
#include "kernels/base/copy.h"
#include "kernels/gemm.h"
#include "kernels/latent_key.h"

namespace shoestring {
namespace {

constexpr double kInnerEps = 1e-6;

TensorView as_one_head(TensorView matrix) { return heads_of(matrix, 0, 1, matrix.shape[1]); }

}  // namespace

AttentionMla::AttentionMla(const ModelConfig& config, const PrecisionSpec& precision, const std::string& prefix,
                           const RopeTable& rope)
    : heads_(config.heads),
      nope_(config.qk_nope_head_dim),
      rope_dim_(config.qk_rope_head_dim),
      v_dim_(config.v_head_dim),
      query_(config.q_lora_rank > 0 ? config.q_lora_rank : config.heads * config.qk_dim),
      latent_(config.kv_lora_rank),
      scale_(config.softmax_scale),
      activation_(activation_dtype(precision)),
      master_(master_dtype(precision)),
      rope_(rope) {
  const LinearPrecision covered = covered_precision(precision);
  const auto linear = [&](std::int64_t in, std::int64_t out, std::vector<ParameterSlice> slices) {
    return std::make_unique<Linear>(LinearOptions{
        .in = in, .out = out, .slices = std::move(slices), .init_std = config.init_std, .precision = covered});
  };
  const auto one = [&](const char* which, std::int64_t in, std::int64_t out) {
    std::vector<ParameterSlice> slices;
    append_slice(slices, prefix + which + ".weight", out, in);
    return linear(in, out, std::move(slices));
  };
  std::vector<ParameterSlice> down;
  append_slice(down, prefix + (config.q_lora_rank > 0 ? "q_a_proj.weight" : "q_proj.weight"), query_, config.hidden);
  append_slice(down, prefix + "kv_a_proj_with_mqa.weight", latent_ + rope_dim_, config.hidden);
  down_ = linear(config.hidden, down_width(), std::move(down));
  if (config.q_lora_rank > 0) {
    q_norm_ = std::make_unique<Norm>(NormOptions{prefix + "q_a_layernorm.weight", query_, 1, kInnerEps, master_});
    q_up_ = one("q_b_proj", query_, heads_ * qk_dim());
  }
  kv_norm_ = std::make_unique<Norm>(NormOptions{prefix + "kv_a_layernorm.weight", latent_, 1, kInnerEps, master_});
  kv_up_ = one("kv_b_proj", latent_, kv_width());
  out_ = one("o_proj", heads_ * v_dim_, config.hidden);
}

TensorView AttentionMla::take(bool saved_too, std::int64_t tokens, std::int64_t columns, Saved& saved,
                              LayerContext& context) const {
  return (saved_too ? saved.arena() : context.scratch).take(activation_, {tokens, columns});
}

/// For what `reader` reads; none where it takes that in FP8.
TensorView AttentionMla::take_input(const Linear& reader, std::int64_t tokens, Saved& saved,
                                    LayerContext& context) const {
  const Device device = context.stream.device();
  if (!reader.takes_input_codes(device.kind)) return take(reader.keeps_input(), tokens, reader.in(), saved, context);
  return view_of(static_cast<void*>(nullptr), activation_, {tokens, reader.in()}, device);
}

void AttentionMla::rotate(TensorView q, TensorView down, bool inverse, LayerContext& context) const {
  for (const TensorView& x : {query_rope(q), as_one_head(shared_key(down))}) {
    rope({.x = x, .positions = context.tokens.positions, .table = rope_, .inverse = inverse, .stream = context.stream});
  }
}

TensorView AttentionMla::keys(const Record& record, LayerContext& context) const {
  TensorView k = context.scratch.take(activation_, {record.kv.shape[0], heads_, qk_dim()});
  latent_key({.k = k,
              .own = heads_of(record.kv, 0, heads_, nope_ + v_dim_).slice(2, 0, nope_),
              .shared = shared_key(record.down),
              .stream = context.stream});
  return k;
}

void AttentionMla::project_heads(const Record& record, Saved& saved, LayerContext& context) {
  const std::int64_t tokens = record.down.shape[0];
  if (q_up_) {
    const TensorView latent = take_input(*q_up_, tokens, saved, context);
    q_norm_->forward(record.down.slice(1, 0, query_), latent, saved, context, q_up_.get());
    q_up_->forward(latent, record.q, saved, context);
  }
  const TensorView latent = take_input(*kv_up_, tokens, saved, context);
  kv_norm_->forward(record.down.slice(1, query_, latent_), latent, saved, context, kv_up_.get());
  kv_up_->forward(latent, record.kv, saved, context);
}

ConstTensorView AttentionMla::head_weights(std::int64_t head, bool values) const {
  const std::int64_t first = head * (nope_ + v_dim_) + (values ? nope_ : 0);
  return ConstTensorView(kv_up_->weight.value).slice(0, first, values ? v_dim_ : nope_);
}

/// o, over kept latents. In the format of the master weights between the products: no compute copy fits them.
void AttentionMla::attend_latents(const Record& record, Saved& saved, LayerContext& context) {
  check(kv_up_->weight.adapter == nullptr, "latents are kept of weights that an adapter adds to");
  const std::int64_t tokens = record.down.shape[0];
  const std::int64_t kept = latent_ + rope_dim_;
  if (q_up_) {
    const TensorView latent = take(q_up_->keeps_input(), tokens, query_, saved, context);
    q_norm_->forward(record.down.slice(1, 0, query_), latent, saved, context);
    q_up_->forward(latent, record.q, saved, context);
  }
  rotate(record.q, record.down, false, context);
  const auto scratch = [&](DType dtype, const Shape& shape) { return context.scratch.take(dtype, shape); };
  const TensorView latent = scratch(activation_, {tokens, latent_});
  kv_norm_->forward(record.down.slice(1, query_, latent_), latent, saved, context);
  const TensorView key = scratch(activation_, {tokens, 1, kept});
  latent_key({.k = key, .own = as_one_head(latent), .shared = shared_key(record.down), .stream = context.stream});
  const TensorView q = scratch(activation_, {tokens, heads_, kept});
  const TensorView o = scratch(activation_, {tokens, heads_, latent_});
  const auto product = [&](TensorView c, ConstTensorView a, ConstTensorView b) {
    Arena::Scope scope(context.scratch);
    const TensorView left = context.scratch.take(activation_, a.shape);
    copy(left, a, context.stream);
    const TensorView wide = context.scratch.take(master_, a.shape);
    convert_tensor(wide, left, context.stream);
    gemm({.c = c, .a = unscaled(wide), .b = unscaled(b), .scratch = context.scratch, .stream = context.stream});
  };
  const auto head_of = [](TensorView all, std::int64_t head) {
    TensorView one = all.slice(1, head, 1);
    one.shape = {all.shape[0], all.shape[2]};
    one.strides = {all.strides[0], 1};
    return one;
  };
  const TensorView given = heads_of(record.q, 0, heads_, qk_dim());
  for (std::int64_t head = 0; head < heads_; ++head) {
    const TensorView own = head_of(given, head), moved = head_of(q, head);
    product(moved.slice(1, 0, latent_), own.slice(1, 0, nope_), head_weights(head, false).transposed());
    copy(moved.slice(1, latent_, rope_dim_), own.slice(1, nope_, rope_dim_), context.stream);
  }
  attend({.o = o, .lse = record.lse, .q = q, .k = key, .v = as_one_head(latent), .scale = scale_}, context);
  const TensorView out = heads_of(record.o, 0, heads_, v_dim_);
  for (std::int64_t head = 0; head < heads_; ++head) {
    product(head_of(out, head), head_of(o, head), head_weights(head, true));
  }
}

void AttentionMla::forward(ConstTensorView x, TensorView y, Saved& saved, LayerContext& context) {
  Arena::Scope scope(context.scratch);
  const std::int64_t tokens = x.shape[0];
  Record& record = saved.record<Record>(this);
  record.down = saved.take(activation_, {tokens, down_width()});
  record.q = q_up_ ? saved.take(activation_, {tokens, heads_ * qk_dim()}) : record.down.slice(1, 0, query_);
  record.kv = saved.take(activation_, {tokens, kv_width()});
  record.o = saved.take(activation_, {tokens, heads_ * v_dim_});
  record.lse = saved.take(master_, {heads_, tokens});
  down_->forward(x, record.down, saved, context);
  if (context.cached != nullptr && heads_ > 1 && context.cached->keys.shape[1] == 1) {  // latents are kept
    attend_latents(record, saved, context);
    out_->forward(record.o, y, saved, context);
    return;
  }
  project_heads(record, saved, context);
  rotate(record.q, record.down, false, context);
  attend({.o = heads_of(record.o, 0, heads_, v_dim_),
          .lse = record.lse,
          .q = heads_of(record.q, 0, heads_, qk_dim()),
          .k = keys(record, context),
          .v = heads_of(record.kv, 0, heads_, nope_ + v_dim_).slice(2, nope_, v_dim_),
          .scale = scale_},
         context);
  out_->forward(record.o, y, saved, context);
}

void AttentionMla::backward_input(ConstTensorView dy, TensorView dx, Saved& saved, LayerContext& context) {
  Arena::Scope scope(context.scratch);
  Record& record = saved.record<Record>(this);
  const std::int64_t tokens = dy.shape[0];
  const TensorView ddown = take(down_->keeps_gradient(), tokens, down_width(), saved, context);
  const TensorView dq =
      q_up_ ? take(q_up_->keeps_gradient(), tokens, heads_ * qk_dim(), saved, context) : ddown.slice(1, 0, query_);
  const TensorView dkv = take(kv_up_->keeps_gradient(), tokens, kv_width(), saved, context);
  const TensorView dkv_heads = heads_of(dkv, 0, heads_, nope_ + v_dim_);
  const TensorView d_o = context.scratch.take(activation_, {tokens, heads_ * v_dim_});
  const TensorView dk = context.scratch.take(activation_, {tokens, heads_, qk_dim()});
  out_->backward_input(dy, d_o, saved, context);
  attention_backward({.dq = heads_of(dq, 0, heads_, qk_dim()),
                      .dk = dk,
                      .dv = dkv_heads.slice(2, nope_, v_dim_),
                      .d_o = heads_of(d_o, 0, heads_, v_dim_),
                      .q = heads_of(record.q, 0, heads_, qk_dim()),
                      .k = keys(record, context),
                      .v = heads_of(record.kv, 0, heads_, nope_ + v_dim_).slice(2, nope_, v_dim_),
                      .o = heads_of(record.o, 0, heads_, v_dim_),
                      .lse = record.lse,
                      .segment_start = context.tokens.segment_start,
                      .scale = scale_,
                      .scratch = context.scratch,
                      .stream = context.stream,
                      .document_starts = context.tokens.document_starts});
  latent_key_gradient(
      {.down = dkv_heads.slice(2, 0, nope_), .dshared = shared_key(ddown), .dk = dk, .stream = context.stream});
  rotate(dq, ddown, true, context);
  if (q_up_) {
    const TensorView dlatent = context.scratch.take(activation_, {tokens, query_});
    q_up_->backward_input(dq, dlatent, saved, context);
    q_norm_->backward_input(dlatent, ddown.slice(1, 0, query_), false, saved, context);
  }
  const TensorView dlatent = context.scratch.take(activation_, {tokens, latent_});
  kv_up_->backward_input(dkv, dlatent, saved, context);
  kv_norm_->backward_input(dlatent, ddown.slice(1, query_, latent_), false, saved, context);
  down_->backward_input(ddown, dx, saved, context);
}

void AttentionMla::backward_weight(Saved& saved, LayerContext& context) {
  out_->backward_weight(saved, context);
  if (q_up_) {
    q_up_->backward_weight(saved, context);
    q_norm_->backward_weight(saved, context);
  }
  kv_up_->backward_weight(saved, context);
  kv_norm_->backward_weight(saved, context);
  down_->backward_weight(saved, context);
}

std::vector<Parameter*> AttentionMla::parameters() {
  std::vector<Parameter*> all{&down_->weight};
  if (q_up_) all.insert(all.end(), {&q_norm_->gain, &q_up_->weight});
  all.insert(all.end(), {&kv_norm_->gain, &kv_up_->weight, &out_->weight});
  return all;
}

std::vector<Linear*> AttentionMla::linears() {
  std::vector<Linear*> all{down_.get(), kv_up_.get(), out_.get()};
  if (q_up_) all.insert(all.begin() + 1, q_up_.get());
  return all;
}

void AttentionMla::prepare(const PrepareContext& context) {
  for (Linear* linear : linears()) linear->prepare(context);
}

}  // namespace shoestring
