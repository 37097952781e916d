#include "core/model/accounting.h"

#include <fmt/core.h>

#include <memory>
#include <string>
#include <vector>

namespace shoestring {
namespace {

/// A declared model, without memory.
TransformerOptions declared(const ModelConfig& config) {
  TransformerOptions options;
  options.model = config;
  options.precision.policy = PrecisionPolicy::fp32;
  options.run = {1, 1, 1};
  return options;
}

/// Weight matrices that one token passes, summed.
struct Products {
  double covered = 0;
  double exempt = 0;
  double router = 0;
  double attention = 0;  ///< forward FLOPs of the attention core per token of sequence length
};

Products block_products(const ModelConfig& config, std::int64_t layer) {
  Products p;
  const auto d = static_cast<double>(config.hidden);
  const auto heads = static_cast<double>(config.heads);
  const auto qk = static_cast<double>(config.qk_dim);
  const auto v = static_cast<double>(config.v_dim);
  if (config.latent_attention) {
    const auto latent = static_cast<double>(config.kv_lora_rank);
    const auto query = static_cast<double>(config.q_lora_rank);
    p.covered += query > 0 ? d * query + query * heads * qk : d * heads * qk;
    p.covered += d * (latent + static_cast<double>(config.rope_dim));
    p.covered += latent * heads * (static_cast<double>(config.qk_nope_head_dim) + v);
  } else {
    p.covered += d * (heads * qk + static_cast<double>(config.kv_heads) * (qk + v));
  }
  p.covered += heads * v * d;
  if (config.mixture(layer)) {
    p.covered +=
        3 * d *
        static_cast<double>(config.experts_per_token * config.expert_feed_forward + config.shared_feed_forward());
    p.router += d * static_cast<double>(config.experts);
  } else {
    p.covered += 3 * d * static_cast<double>(config.feed_forward);
  }
  p.attention = heads * (qk + v);  // two products of 2 FLOPs over half the sequence
  return p;
}

void add(FormatFlops& flops, ProductFormat format, double count) {
  switch (format) {
    case ProductFormat::f64: flops.f64 += count; return;
    case ProductFormat::f32: flops.f32 += count; return;
    case ProductFormat::bf16: flops.bf16 += count; return;
    case ProductFormat::fp8: flops.fp8 += count; return;
  }
}

/// Adds what `products` cost in each direction.
void add_products(const Products& products, const PrecisionSpec& precision, double sequence, bool frozen,
                  FormatFlops& forward, FormatFlops& backward) {
  const LinearPrecision covered = covered_precision(precision);
  const ProductFormat exempt = exempt_precision(precision).forward;
  const ProductFormat router = exempt == ProductFormat::f64 ? ProductFormat::f64 : ProductFormat::f32;
  add(forward, covered.forward, 2 * products.covered);
  add(backward, covered.input_gradient, 2 * products.covered);
  if (!frozen) add(backward, covered.weight_gradient, 2 * products.covered);
  add(forward, exempt, 2 * products.exempt);
  add(backward, exempt, (frozen ? 2 : 4) * products.exempt);
  add(forward, router, 2 * products.router);
  add(backward, router, 4 * products.router);
  add(forward, exempt, products.attention * sequence);
  add(backward, exempt, 2 * products.attention * sequence);
}

}  // namespace

ParameterCounts count_parameters(const ModelConfig& config) {
  const Transformer model(declared(config));
  const std::string further = fmt::format("model.layers.{}.", config.layers);
  ParameterCounts counts;
  for (const Parameter* parameter : model.parameters()) {
    const std::string& name = parameter->slices.front().name;
    const std::int64_t elements = parameter->elements();
    std::int64_t active = elements;
    if (parameter->of_experts()) active = elements / config.experts * config.experts_per_token;
    if (name == "model.embed_tokens.weight" && !config.tie_embeddings) active = 0;
    if (name.starts_with(further)) {
      counts.further += elements;
      counts.further_active += active;
    } else {
      counts.total += elements;
      counts.active += active;
    }
  }
  return counts;
}

FormatFlops& FormatFlops::operator+=(const FormatFlops& other) {
  f64 += other.f64;
  f32 += other.f32;
  bf16 += other.bf16;
  fp8 += other.fp8;
  return *this;
}

FormatFlops FlopCounts::training_by_format() const {
  FormatFlops sum = forward;
  sum += backward;
  sum += further;
  return sum;
}

FlopCounts count_flops(const ModelConfig& config, const PrecisionSpec& precision, std::int64_t sequence,
                       const LoraSpec& lora) {
  const bool frozen = lora.rank > 0;
  FlopCounts counts;
  const auto length = static_cast<double>(sequence);
  Products head;
  head.exempt = static_cast<double>(config.hidden) * static_cast<double>(config.vocabulary);
  for (std::int64_t layer = 0; layer < config.layers; ++layer) {
    add_products(block_products(config, layer), precision, length, frozen, counts.forward, counts.backward);
  }
  add_products(head, precision, length, frozen, counts.forward, counts.backward);
  for (std::int64_t i = 0; i < config.mtp_layers; ++i) {
    Products join = head;
    join.exempt += 2.0 * static_cast<double>(config.hidden) * static_cast<double>(config.hidden);
    add_products(block_products(config, config.layers), precision, length, frozen, counts.further, counts.further);
    add_products(join, precision, length, frozen, counts.further, counts.further);
  }
  return counts;
}

}  // namespace shoestring
