#include "core/model/key_value_cache.h"

#include "kernels/attention.h"
#include "kernels/base/check.h"
#include "kernels/cached_attention.h"

namespace shoestring {
namespace {

std::int64_t rounded(std::int64_t capacity) { return (capacity + kCachedKeys - 1) / kCachedKeys * kCachedKeys; }

/// What is kept of a token in a layer.
struct Kept {
  std::int64_t heads;
  std::int64_t key;
  std::int64_t value;
};

std::int64_t layers_of(const ModelConfig& config, const KeyValueCache::Options& options) {
  return options.layers < 0 ? config.layers : options.layers;
}

Kept kept_of(const ModelConfig& config, bool latents) {
  check(!latents || (config.latent_attention && config.heads > 1), "latents are to be kept of a model without them");
  if (latents) return {1, config.kv_lora_rank + config.qk_rope_head_dim, config.kv_lora_rank};
  return {config.latent_attention ? config.heads : config.kv_heads, config.qk_dim, config.v_dim};
}

}  // namespace

KeyValueCache::KeyValueCache(const ModelConfig& config, DType activation, const Options& options, Device device)
    : capacity_(rounded(options.capacity)), lengths_(static_cast<std::size_t>(options.slots)) {
  const Kept kept = kept_of(config, options.latents);
  for (std::int64_t i = 0; i < layers_of(config, options); ++i) {
    layers_.push_back(
        {Tensor(activation, {options.slots, kept.heads, capacity_ / kCachedKeys, kept.key * kCachedKeys}, device),
         Tensor(activation, {options.slots, kept.heads, capacity_, kept.value}, device)});
  }
}

void KeyValueCache::set_length(std::int64_t slot, std::int64_t length) {
  check(length >= 0 && length <= capacity_, "slot {} holds at most {} tokens, not {}", slot, capacity_, length);
  lengths_.at(static_cast<std::size_t>(slot)) = length;
}

CachedRows KeyValueCache::rows(std::int64_t layer, ConstTensorView slots) {
  Layer& own = layers_.at(static_cast<std::size_t>(layer));
  return {own.keys.view(), own.values.view(), slots};
}

void attend(const Attended& heads, LayerContext& context) {
  if (context.cached == nullptr) {
    attention_forward({.o = heads.o,
                       .lse = heads.lse,
                       .q = heads.q,
                       .k = heads.k,
                       .v = heads.v,
                       .segment_start = context.tokens.segment_start,
                       .scale = heads.scale,
                       .scratch = context.scratch,
                       .stream = context.stream,
                       .document_starts = context.tokens.document_starts});
    return;
  }
  cached_attention({.o = heads.o,
                    .keys = context.cached->keys,
                    .values = context.cached->values,
                    .q = heads.q,
                    .k = heads.k,
                    .v = heads.v,
                    .slots = context.cached->slots,
                    .positions = context.tokens.positions,
                    .scale = heads.scale,
                    .scratch = context.scratch,
                    .stream = context.stream});
}

}  // namespace shoestring
