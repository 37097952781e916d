// What generation keeps of the tokens before: keys and values of every layer, a slot for each sequence.
//
// Latent attention may keep its heads' keys and values, or the latents that these are made from. The former are what
// training computes, bit for bit. The latter take a fraction (of DeepSeek-V2-Lite's 5,120 numbers a token and layer,
// 1,088: the latents stand there as keys and as values), and the projections are moved over to the queries, so that
// sums have another order and compute copies of the weights are not used.
#pragma once

#include <cstdint>
#include <vector>

#include "core/model/config.h"
#include "core/model/layer.h"

namespace shoestring {

class KeyValueCache {
 public:
  struct Options {
    std::int64_t slots = 1;
    std::int64_t capacity = 0;  ///< tokens of each; rounded up to a multiple of 16
    bool latents = false;       ///< of latent attention: keep those
    std::int64_t layers = -1;   ///< of the model, that are on this rank; -1: all
  };
  KeyValueCache(const ModelConfig& config, DType activation, const Options& options, Device device = {});

  std::int64_t slots() const { return static_cast<std::int64_t>(lengths_.size()); }
  std::int64_t capacity() const { return capacity_; }
  /// Tokens that a slot holds.
  std::int64_t length(std::int64_t slot) const { return lengths_.at(static_cast<std::size_t>(slot)); }
  /// Says that a slot holds `length` tokens: more than before, when they have been written; fewer, to forget the rest.
  void set_length(std::int64_t slot, std::int64_t length);

  /// Of one layer, for rows of the sequences `slots`, i32 [rows].
  CachedRows rows(std::int64_t layer, ConstTensorView slots);

 private:
  struct Layer {
    Tensor keys;
    Tensor values;
  };
  std::int64_t capacity_;
  std::vector<std::int64_t> lengths_;
  std::vector<Layer> layers_;
};

/// Heads as attention reads them.
struct Attended {
  TensorView o;       ///< [tokens, heads, v_dim], overwritten
  TensorView lse;     ///< [heads, tokens], overwritten unless the tokens continue sequences
  ConstTensorView q;  ///< [tokens, heads, qk_dim]
  ConstTensorView k;  ///< [tokens, kv_heads, qk_dim]
  ConstTensorView v;  ///< [tokens, kv_heads, v_dim]
  double scale;
};
/// Attention inside documents, or over the sequences that the context's tokens continue.
void attend(const Attended& heads, LayerContext& context);

}  // namespace shoestring
