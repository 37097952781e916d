#include "core/budget/layer_cost.h"

#include <algorithm>
#include <cmath>

#include "core/model/node_reach.h"
#include "core/model/precision.h"

namespace shoestring {
namespace {

constexpr double kPlainBytes = 2;           // of an activation, and of a gradient between devices
constexpr double kAttentionBackward = 2.5;  // five products where forward has two
constexpr double kScoreBytes = 13;          // per score that softmax, mask and dropout move, forward; the same backward

RateFormat rate_format(ProductFormat format) {
  switch (format) {
    case ProductFormat::f64: return RateFormat::fp64;
    case ProductFormat::f32: return RateFormat::fp32;
    case ProductFormat::bf16: return RateFormat::bf16;
    case ProductFormat::fp8: return RateFormat::fp8;
  }
  return RateFormat::fp32;
}

double real(std::int64_t value) { return static_cast<double>(value); }

}  // namespace

LayerSeconds& LayerSeconds::operator+=(const LayerSeconds& other) {
  for (double LayerSeconds::*member :
       {&LayerSeconds::forward, &LayerSeconds::backward_input, &LayerSeconds::backward_weight, &LayerSeconds::again,
        &LayerSeconds::tensor_forward, &LayerSeconds::tensor_backward, &LayerSeconds::exchange_forward,
        &LayerSeconds::exchange_backward}) {
    this->*member += other.*member;
  }
  return *this;
}

/// A layer under construction.
struct LayerCosts::Part {
  LayerCost cost;
  double core_forward = 0;   ///< the attention core, which selective recomputation repeats
  double heads_forward = 0;  ///< from latents to heads, which selective recomputation repeats
  double head_bytes = 0;     ///< saved of queries, keys and values, unless latents make them again
  double gate_seconds = 0;   ///< what the gate gives, from its two inputs, which selective recomputation repeats
  double gate_bytes = 0;     ///< saved of it, unless it is repeated
  double score_bytes = 0;    ///< saved by a core that writes its scores out, unless it is repeated
  bool experts = false;      ///< products belong to experts
};

LayerCosts::LayerCosts(const PlannedModel& model, const PrecisionSpec& precision, const PlanLayout& layout,
                       double sequence, const OperationCost& operations, const CommunicationCost& messages)
    : model_(model),
      layout_(layout),
      operations_(operations),
      messages_(messages),
      sequence_(sequence),
      tokens_(layout.micro_batch * sequence / layout.context),
      sequence_share_(layout.sequence_parallel ? tokens_ / layout.tensor : tokens_),
      covered_(rate_format(covered_precision(precision).forward)),
      exempt_(rate_format(exempt_precision(precision).forward)),
      cached_bytes_(covered_ == RateFormat::fp8 && precision.cache_fp8 ? 1 : kPlainBytes) {}

void LayerCosts::add_product(Part& part, const Product& product, RateFormat format, double saved_rows) const {
  LayerSeconds& seconds = part.cost.seconds;
  const auto& [m, n, k, count] = product;
  part.cost.flops += product.flops();
  seconds.forward += operations_.product_seconds(product, format);
  seconds.backward_input += operations_.product_seconds({m, k, n, count}, format);
  seconds.backward_weight += operations_.product_seconds({n, k, m, count}, format);
  (part.experts ? part.cost.expert_parameters : part.cost.parameters) += n * k * count;
  double element_bytes = kPlainBytes;
  if (format == RateFormat::fp8) {
    const double quantised = operations_.stack().quantise_bytes * count;
    seconds.forward += operations_.traffic_seconds(quantised * m * k);
    seconds.backward_input += operations_.traffic_seconds(quantised * m * n);
    element_bytes = 1;
  } else if (format != RateFormat::bf16) {
    element_bytes = 4;
  }
  part.cost.saved_bytes += element_bytes * (saved_rows < 0 ? m : saved_rows) * k * count;
}

// Gate and up in one product of [rows, 2 inner], what lies between, and down.
void LayerCosts::add_gated(Part& part, double rows, double inner, double count, double saved_rows) const {
  const double hidden = real(model_.config.hidden);
  const double matrices = model_.gated ? 2 : 1;
  add_product(part, {rows, matrices * inner, hidden, count}, covered_, saved_rows);
  add_product(part, {rows, hidden, inner, count}, covered_, 0);
  const double elements = rows * inner * count;
  const double passes = elements * (model_.gated ? 1.5 : 1) * operations_.stack().feed_forward_passes;
  add_passes(part, passes, 1);
  const double product_bytes = elements * (covered_ == RateFormat::fp8 ? 1 : kPlainBytes);
  part.cost.saved_bytes += cached_bytes_ * elements * matrices + (model_.gated ? 0 : product_bytes);
  if (!model_.gated) return;
  part.gate_seconds += operations_.traffic_seconds(passes * kPlainBytes);
  part.gate_bytes += product_bytes;
}

void LayerCosts::add_passes(Part& part, double elements, double passes) const {
  const double seconds = operations_.traffic_seconds(elements * passes * kPlainBytes);
  part.cost.seconds.forward += seconds;
  part.cost.seconds.backward_input += 2 * seconds;
}

void LayerCosts::add_attention(Part& part) const {
  const ModelConfig& c = model_.config;
  const double hidden = real(c.hidden);
  const double heads = real(c.heads) / layout_.tensor;
  const double qk = real(c.qk_dim);
  const double v = real(c.v_dim);
  if (c.latent_attention) {
    const double latent = real(c.kv_lora_rank);
    const double query = real(c.q_lora_rank);
    if (query > 0) add_product(part, {tokens_, query, hidden}, covered_, 0);
    add_product(part, {tokens_, latent + real(c.rope_dim), hidden}, covered_, sequence_share_);
    const double before = part.cost.seconds.forward;
    add_product(part, {tokens_, heads * qk, query > 0 ? query : hidden}, covered_);
    add_product(part, {tokens_, heads * (real(c.qk_nope_head_dim) + v), latent}, covered_);
    part.heads_forward = part.cost.seconds.forward - before;
  } else {
    const double kv_heads = std::max(1.0, real(c.kv_heads) / layout_.tensor);
    add_product(part, {tokens_, heads * qk + kv_heads * (qk + v), hidden}, covered_, sequence_share_);
  }
  add_product(part, {tokens_, hidden, heads * v}, covered_);

  LayerSeconds& seconds = part.cost.seconds;
  const double flops = tokens_ * sequence_ * heads * (qk + v);
  part.cost.flops += flops;
  part.cost.attention_flops += flops;
  if (operations_.stack().scores_in_memory) {
    // Every score is computed, half of them for nothing.
    const double count = heads * tokens_ / sequence_;
    const double products = operations_.product_seconds({sequence_, sequence_, qk, count}, exempt_) +
                            operations_.product_seconds({sequence_, v, sequence_, count}, exempt_);
    const double scores = operations_.traffic_seconds(kScoreBytes * count * sequence_ * sequence_);
    part.core_forward = products + scores;
    part.score_bytes = 5 * count * sequence_ * sequence_;
    seconds.backward_input += 2 * products + scores;
  } else {
    part.core_forward = operations_.attention_seconds(flops);
    seconds.backward_input += kAttentionBackward * part.core_forward;
    const double kv_heads = c.latent_attention ? heads : std::max(1.0, real(c.kv_heads) / layout_.tensor);
    part.head_bytes = kPlainBytes * tokens_ * (heads * qk + kv_heads * (qk + v));
  }
  seconds.forward += part.core_forward;
}

void LayerCosts::add_feed_forward(Part& part) const {
  add_gated(part, tokens_, real(model_.config.feed_forward) / layout_.tensor, 1, sequence_share_);
}

void LayerCosts::add_experts(Part& part) const {
  const ModelConfig& c = model_.config;
  const double hidden = real(c.hidden);
  const double chosen = real(c.experts_per_token);
  // Experts are whole on their device: the tensor axis deals out tokens here.
  const double tokens = tokens_ / layout_.tensor;
  const double inner = real(c.expert_feed_forward);
  const double local = real(c.experts) / layout_.expert;
  const double copies = tokens * chosen * model_.imbalance;  // that this device computes
  part.experts = true;
  add_gated(part, copies / local, inner, local, copies / local);
  part.experts = false;
  // Permuted, packed, sorted by expert, sorted back, unpacked, weighed and summed: each read and written.
  constexpr double kMoves = 12;
  add_passes(part, copies * hidden, kMoves);
  add_product(part, {tokens_, real(c.experts), hidden}, exempt_);
  if (c.shared_experts > 0) {
    add_gated(part, tokens_, real(c.shared_feed_forward()) / layout_.tensor, 1, sequence_share_);
  }
  const DeviceGroup group{layout_.expert, 1};
  const double node_limit = real(most_nodes(c, messages_.nodes_of(group)));
  const bool fp8 = covered_ == RateFormat::fp8 && operations_.stack().dispatches_fp8;
  const double dispatched = fp8 ? 1 : kPlainBytes;
  const double token_bytes = tokens * hidden * model_.imbalance;
  const double there = messages_.exchange_seconds(group, token_bytes * dispatched, chosen, node_limit);
  const double back = messages_.exchange_seconds(group, token_bytes * kPlainBytes, chosen, node_limit);
  part.cost.seconds.exchange_forward += there + back;
  part.cost.seconds.exchange_backward += there + back;
  part.cost.working_bytes += 2 * kPlainBytes * copies * hidden;
}

// Two sums over the tensor axis in each direction; with sequence parallelism a gather more, for the weight gradients.
void LayerCosts::add_tensor_messages(Part& part) const {
  LayerSeconds& seconds = part.cost.seconds;
  const double bytes = tokens_ * real(model_.config.hidden) * kPlainBytes;
  const double exposed = operations_.stack().tensor_exposed;
  if (layout_.tensor > 1) {
    const double sums = 2 * messages_.all_reduce_seconds({layout_.tensor, 1}, bytes) * exposed;
    seconds.tensor_forward += sums;
    seconds.tensor_backward += sums * (layout_.sequence_parallel ? 1.25 : 1);
  }
  if (layout_.context > 1) {
    const ModelConfig& c = model_.config;
    const double keys = layout_.context * tokens_ * real(c.kv_heads) * real(c.qk_dim + c.v_dim) / layout_.tensor;
    const double gather = messages_.gather_seconds({layout_.context, layout_.tensor}, keys * kPlainBytes) * exposed;
    seconds.tensor_forward += gather;
    seconds.tensor_backward += 2 * gather;
  }
}

LayerCost LayerCosts::finish(const Part& part) const {
  LayerCost cost = part.cost;
  LayerSeconds& seconds = cost.seconds;
  if (layout_.recompute == Recompute::full) {
    seconds.again = seconds.forward;
    seconds.tensor_backward += seconds.tensor_forward;
    seconds.exchange_backward += seconds.exchange_forward;
    cost.working_bytes += cost.saved_bytes + part.score_bytes + part.head_bytes + part.gate_bytes;
    cost.saved_bytes = kPlainBytes * sequence_share_ * real(model_.config.hidden);
  } else if (layout_.recompute == Recompute::selective) {
    const bool latents = part.heads_forward > 0;
    seconds.again = part.heads_forward + part.gate_seconds + (part.score_bytes > 0 ? part.core_forward : 0);
    cost.working_bytes += part.score_bytes + part.gate_bytes + (latents ? part.head_bytes : 0);
    cost.saved_bytes += latents ? 0 : part.head_bytes;
  } else {
    cost.saved_bytes += part.score_bytes + part.head_bytes + part.gate_bytes;
  }
  return cost;
}

// Launches and the device's work overlap where one outlasts the other by far: the root of the sum of squares.
void LayerCosts::wait_for_host(LayerSeconds& seconds) const {
  const double device = seconds.work() + seconds.messages();
  const double waited = std::hypot(device, operations_.stack().mixture_host_seconds) - device;
  seconds.forward += waited / 3;
  seconds.backward_input += 2 * waited / 3;
}

LayerCost LayerCosts::block(bool mixture) const {
  const Stack& stack = operations_.stack();
  Part part;
  add_attention(part);
  if (mixture) {
    add_experts(part);
  } else {
    add_feed_forward(part);
  }
  const double residual = sequence_share_ * real(model_.config.hidden);
  add_passes(part, residual, stack.hidden_passes);
  part.cost.saved_bytes += 2 * kPlainBytes * residual;
  part.cost.seconds.forward += stack.launch_seconds;
  part.cost.seconds.backward_input += 2 * stack.launch_seconds;
  add_tensor_messages(part);
  LayerCost cost = finish(part);
  if (mixture) wait_for_host(cost.seconds);
  return cost;
}

LayerCost LayerCosts::head() const {
  Part part;
  const double logits = real(model_.config.vocabulary) / layout_.tensor;
  add_product(part, {tokens_, logits, real(model_.config.hidden)}, exempt_);
  part.cost.seconds.forward += operations_.traffic_seconds(tokens_ * logits * operations_.stack().loss_bytes);
  constexpr double kLogitBytes = 6;  // BF16 logits, FP32 gradient in place of a second copy
  part.cost.working_bytes += tokens_ * logits * kLogitBytes;
  return part.cost;
}

LayerCost LayerCosts::join() const {
  Part part;
  const double hidden = real(model_.config.hidden);
  add_product(part, {tokens_, hidden, 2 * hidden}, exempt_);
  add_passes(part, tokens_ * hidden, operations_.stack().hidden_passes);
  return part.cost;
}

double LayerCosts::embedding_parameters() const {
  const ModelConfig& c = model_.config;
  const double positions = model_.learned_positions ? real(c.max_positions) : 0;
  return (real(c.vocabulary) / layout_.tensor + positions) * real(c.hidden);
}

}  // namespace shoestring
