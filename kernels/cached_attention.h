// Attention of tokens that continue kept sequences: generation. No gradient.
//
//   keys[slot][s = position] = k,  values[slot][s] = v                          of every row, first
//   o[r] = sum over s <= position[r] of softmax(scale * q[r] . keys[slot][s]) * values[slot][s],  slot = slot[r]
//
// A slot keeps one sequence; a row's slot holds every token before it, from this call or earlier ones. Rows come in any
// number and order: a whole prompt, one token of each of many sequences, or both at once. Grouped heads as in
// attention.h.
//
// What a row gets depends on its own sequence alone. `simd` and `reference` add up in the order of their namesakes of
// attention_forward: the same bits as if the sequence had been one document there (tests hold it), which is what makes
// probabilities of generated tokens those that training computes. amx of that op has an order of its own: where
// equality is wanted there, pin it to simd.
//
// Keys lie sixteen of one head together, one dim behind the other, so that scores of sixteen keys are sums in lanes.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/base/device.h"
#include "kernels/base/memory.h"
#include "kernels/base/tensor.h"
#include "kernels/base/variant.h"

namespace shoestring {

inline constexpr std::int64_t kCachedKeys = 16;  ///< that lie together; a slot's capacity is a multiple

struct CachedAttentionArgs {
  TensorView o;               ///< [rows, heads, v_dim], overwritten
  TensorView keys;            ///< [slots, kv_heads, capacity / 16, qk_dim * 16]: [dim][key] of sixteen; written
  TensorView values;          ///< [slots, kv_heads, capacity, v_dim]; written
  ConstTensorView q;          ///< [rows, heads, qk_dim]; its format (f64 | f32 | bf16) is that of all of these
  ConstTensorView k;          ///< [rows, kv_heads, qk_dim]
  ConstTensorView v;          ///< [rows, kv_heads, v_dim]
  ConstTensorView slots;      ///< [rows] i32; rows of one slot that follow each other are worked on together
  ConstTensorView positions;  ///< [rows] i32
  double scale;               ///< positive
  Arena& scratch;             ///< cached_attention_scratch_bytes; given back before the call returns
  Stream& stream;
};
/// Throws Error(bug) for shapes that do not fit, and for a slot or position that is not there.
void cached_attention(const CachedAttentionArgs& args);

struct CachedAttentionShape {
  std::int64_t rows = 0;
  std::int64_t capacity = 0;
  std::int64_t heads = 0;
  std::int64_t kv_heads = 0;
  std::int64_t qk_dim = 0;
  std::int64_t v_dim = 0;
};
std::int64_t cached_attention_scratch_bytes(const CachedAttentionShape& shape, int workers);

std::span<const Variant<CachedAttentionArgs>> cached_attention_variants();

}  // namespace shoestring
