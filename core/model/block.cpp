#include "core/model/block.h"

#include <fmt/core.h>

#include <algorithm>
#include <string>

#include "core/model/attention_gqa.h"
#include "core/model/attention_mla.h"
#include "core/model/feed_forward.h"
#include "kernels/reduce.h"

namespace shoestring {
namespace {

NormOptions norm_options(const ModelConfig& config, const PrecisionSpec& precision, std::int64_t index,
                         const char* which) {
  return {fmt::format("model.layers.{}.{}_layernorm.weight", index, which), config.hidden, 1, config.norm_eps,
          master_dtype(precision)};
}

}  // namespace

Block::Block(const ModelConfig& config, const PrecisionSpec& precision, std::int64_t index, const RopeTable& rope,
             const ExpertShare& share)
    : hidden_(config.hidden),
      activation_(activation_dtype(precision)),
      input_norm_(norm_options(config, precision, index, "input")),
      post_norm_(norm_options(config, precision, index, "post_attention")) {
  const std::string attention = fmt::format("model.layers.{}.self_attn.", index);
  const std::string mlp = fmt::format("model.layers.{}.mlp.", index);
  if (config.latent_attention) {
    attention_ = std::make_unique<AttentionMla>(config, precision, attention, rope);
  } else {
    attention_ = std::make_unique<AttentionGqa>(config, precision, attention, rope);
  }
  if (config.mixture(index)) {
    auto mixture = std::make_unique<MixtureOfExperts>(config, precision, config.mixture_index(index), mlp, share);
    mixture_ = mixture.get();
    feed_forward_ = std::move(mixture);
  } else {
    feed_forward_ = std::make_unique<FeedForward>(
        FeedForwardOptions{config.hidden, config.feed_forward, config.init_std, mlp, precision});
  }
}

TensorView Block::take(bool saved_too, std::int64_t tokens, Saved& saved, LayerContext& context) const {
  return (saved_too ? saved.arena() : context.scratch).take(activation_, {tokens, hidden_});
}

TensorView Block::take_input(Layer& layer, std::int64_t tokens, Saved& saved, LayerContext& context) const {
  const Linear* reader = layer.input_reader();
  const Device device = context.stream.device();
  const bool codes = reader != nullptr && reader->takes_input_codes(device.kind);
  if (codes) return view_of(static_cast<void*>(nullptr), activation_, {tokens, hidden_}, device);
  return take(layer.keeps_input(), tokens, saved, context);
}

void Block::forward(ConstTensorView x, TensorView y, Saved& saved, LayerContext& context) {
  Arena::Scope scope(context.scratch);
  const std::int64_t tokens = x.shape[0];
  const TensorView attention_in = take_input(*attention_, tokens, saved, context);
  const TensorView attention_out = context.scratch.take(activation_, {tokens, hidden_});
  input_norm_.forward(x, attention_in, saved, context, attention_->input_reader());
  attention_->forward(attention_in, attention_out, saved, context);
  const TensorView middle = saved.take(activation_, {tokens, hidden_});
  const TensorView feed_forward_in = take_input(*feed_forward_, tokens, saved, context);
  post_norm_.forward(x, attention_out, middle, feed_forward_in, saved, context, feed_forward_->input_reader());
  feed_forward_->forward(feed_forward_in, y, saved, context);
  axpy(y, 1.0, middle, context.stream);
}

void Block::backward_input(ConstTensorView dy, TensorView dx, Saved& saved, LayerContext& context) {
  Arena::Scope scope(context.scratch);
  const std::int64_t tokens = dy.shape[0];
  const TensorView dmiddle = take(attention_->keeps_gradient(), tokens, saved, context);
  const TensorView dnormed = context.scratch.take(activation_, {tokens, hidden_});
  feed_forward_->backward_input(dy, dnormed, saved, context);
  copy_tensor(dmiddle, dy, context.stream);
  post_norm_.backward_input(dnormed, dmiddle, true, saved, context);
  attention_->backward_input(dmiddle, dnormed, saved, context);
  copy_tensor(dx, dmiddle, context.stream);
  input_norm_.backward_input(dnormed, dx, true, saved, context);
}

void Block::backward_weight(Saved& saved, LayerContext& context) {
  feed_forward_->backward_weight(saved, context);
  post_norm_.backward_weight(saved, context);
  attention_->backward_weight(saved, context);
  input_norm_.backward_weight(saved, context);
}

std::vector<Parameter*> Block::parameters() {
  std::vector<Parameter*> all{&input_norm_.gain};
  for (Parameter* parameter : attention_->parameters()) all.push_back(parameter);
  all.push_back(&post_norm_.gain);
  for (Parameter* parameter : feed_forward_->parameters()) all.push_back(parameter);
  return all;
}

std::vector<Linear*> Block::linears() {
  std::vector<Linear*> all = attention_->linears();
  for (Linear* linear : feed_forward_->linears()) all.push_back(linear);
  return all;
}

void Block::prepare(const PrepareContext& context) {
  attention_->prepare(context);
  feed_forward_->prepare(context);
}

}  // namespace shoestring
