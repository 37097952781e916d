#include "core/model/attention_gqa.h"

#include <algorithm>

#include "core/model/key_value_cache.h"
#include "kernels/attention.h"

namespace shoestring {

AttentionGqa::AttentionGqa(const ModelConfig& config, const PrecisionSpec& precision, const std::string& prefix,
                           const RopeTable& rope)
    : heads_(config.heads),
      kv_heads_(config.kv_heads),
      dim_(config.head_dim),
      scale_(config.softmax_scale),
      activation_(activation_dtype(precision)),
      master_(master_dtype(precision)),
      rope_(rope) {
  const LinearPrecision covered = covered_precision(precision);
  LinearOptions qkv{.in = config.hidden, .out = width(), .init_std = config.init_std, .precision = covered};
  const auto project = [&](const char* which, std::int64_t heads) {
    append_slice(qkv.slices, prefix + which + "_proj.weight", heads * dim_, config.hidden);
    if (config.qkv_bias) append_vector(qkv.bias_slices, prefix + which + "_proj.bias", heads * dim_);
  };
  project("q", heads_);
  project("k", kv_heads_);
  project("v", kv_heads_);
  qkv_ = std::make_unique<Linear>(std::move(qkv));
  LinearOptions out{.in = heads_ * dim_, .out = config.hidden, .init_std = config.init_std, .precision = covered};
  append_slice(out.slices, prefix + "o_proj.weight", config.hidden, heads_ * dim_);
  out_ = std::make_unique<Linear>(std::move(out));
  if (config.qk_norm) {
    const auto norm = [&](const char* which, std::int64_t heads) {
      return std::make_unique<Norm>(
          NormOptions{prefix + which + "_norm.weight", dim_, heads, config.norm_eps, master_});
    };
    q_norm_ = norm("q", heads_);
    k_norm_ = norm("k", kv_heads_);
  }
}

AttentionGqa::Rotated AttentionGqa::rotated(const Record& record, bool again, Saved& saved, LayerContext& context) {
  const TensorView q = heads_of(record.qkv, 0, heads_, dim_);
  const TensorView k = heads_of(record.qkv, heads_ * dim_, kv_heads_, dim_);
  Rotated result{q, k};
  if (q_norm_) {
    const std::int64_t tokens = q.shape[0];
    result = {context.scratch.take(activation_, {tokens, heads_, dim_}),
              context.scratch.take(activation_, {tokens, kv_heads_, dim_})};
    if (again) {
      q_norm_->recompute(q, result.q, context);
      k_norm_->recompute(k, result.k, context);
    } else {
      q_norm_->forward(q, result.q, saved, context);
      k_norm_->forward(k, result.k, saved, context);
    }
  } else if (again) {
    return result;  // rotated in place by forward
  }
  rope({.x = result.q, .positions = context.tokens.positions, .table = rope_, .stream = context.stream});
  rope({.x = result.k, .positions = context.tokens.positions, .table = rope_, .stream = context.stream});
  return result;
}

void AttentionGqa::forward(ConstTensorView x, TensorView y, Saved& saved, LayerContext& context) {
  Arena::Scope scope(context.scratch);
  const std::int64_t tokens = x.shape[0];
  Record& record = saved.record<Record>(this);
  record.qkv = saved.take(activation_, {tokens, width()});
  record.o = saved.take(activation_, {tokens, heads_ * dim_});
  record.lse = saved.take(master_, {heads_, tokens});
  qkv_->forward(x, record.qkv, saved, context);
  const Rotated heads = rotated(record, false, saved, context);
  attend({.o = heads_of(record.o, 0, heads_, dim_),
          .lse = record.lse,
          .q = heads.q,
          .k = heads.k,
          .v = heads_of(record.qkv, (heads_ + kv_heads_) * dim_, kv_heads_, dim_),
          .scale = scale_},
         context);
  out_->forward(record.o, y, saved, context);
}

void AttentionGqa::backward_input(ConstTensorView dy, TensorView dx, Saved& saved, LayerContext& context) {
  Arena::Scope scope(context.scratch);
  Record& record = saved.record<Record>(this);
  const std::int64_t tokens = dy.shape[0];
  Arena& gradients = qkv_->keeps_gradient() ? saved.arena() : context.scratch;
  TensorView dqkv = gradients.take(activation_, {tokens, width()});
  TensorView d_o = context.scratch.take(activation_, {tokens, heads_ * dim_});
  out_->backward_input(dy, d_o, saved, context);
  const Rotated heads = rotated(record, true, saved, context);
  const TensorView dq = heads_of(dqkv, 0, heads_, dim_);
  const TensorView dk = heads_of(dqkv, heads_ * dim_, kv_heads_, dim_);
  attention_backward({.dq = dq,
                      .dk = dk,
                      .dv = heads_of(dqkv, (heads_ + kv_heads_) * dim_, kv_heads_, dim_),
                      .d_o = heads_of(d_o, 0, heads_, dim_),
                      .q = heads.q,
                      .k = heads.k,
                      .v = heads_of(record.qkv, (heads_ + kv_heads_) * dim_, kv_heads_, dim_),
                      .o = heads_of(record.o, 0, heads_, dim_),
                      .lse = record.lse,
                      .segment_start = context.tokens.segment_start,
                      .scale = scale_,
                      .scratch = context.scratch,
                      .stream = context.stream,
                      .document_starts = context.tokens.document_starts});
  for (const TensorView& d : {dq, dk}) {
    rope({.x = d, .positions = context.tokens.positions, .table = rope_, .inverse = true, .stream = context.stream});
  }
  if (q_norm_) {
    q_norm_->backward_input(dq, dq, false, saved, context);
    k_norm_->backward_input(dk, dk, false, saved, context);
  }
  qkv_->backward_input(dqkv, dx, saved, context);
}

void AttentionGqa::backward_weight(Saved& saved, LayerContext& context) {
  out_->backward_weight(saved, context);
  if (q_norm_) {
    q_norm_->backward_weight(saved, context);
    k_norm_->backward_weight(saved, context);
  }
  qkv_->backward_weight(saved, context);
}

std::vector<Parameter*> AttentionGqa::parameters() {
  std::vector<Parameter*> all = qkv_->parameters();
  if (q_norm_) all.insert(all.end(), {&q_norm_->gain, &k_norm_->gain});
  for (Parameter* parameter : out_->parameters()) all.push_back(parameter);
  return all;
}

void AttentionGqa::prepare(const PrepareContext& context) {
  qkv_->prepare(context);
  out_->prepare(context);
}

}  // namespace shoestring
