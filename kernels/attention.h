// Causal attention inside documents, with its gradients; the [tokens, tokens] matrix never exists.
//
//   scores[t, s] = scale * q[t] . k[s]   for segment_start[t] <= s <= t, of the same head
//   o[t] = sum_s softmax(scores[t])[s] * v[s],   lse[t] = ln sum_s exp(scores[t, s])
//
// Tokens of several documents lie behind each other; segment_start[t] is the index of the first token of t's document,
// so segment_start[t] is either t or segment_start[t - 1]. Grouped heads: query head h reads key head
// h / (heads / kv_heads). qk_dim and v_dim may differ (MLA: 192 and 128).
//
// What a token gets depends on its own document only, never on its place in the batch nor on the number of workers:
// blocks are laid from the first token of each document. Source: Dao, "FlashAttention-2" (arXiv 2307.08691).
// All float tensors share one dtype (f64 | f32 | bf16); lse is f32, or f64 in f64 runs. Tensors may be strided (slices
// of fused projections), their last dim is contiguous.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "kernels/base/device.h"
#include "kernels/base/memory.h"
#include "kernels/base/tensor.h"
#include "kernels/base/variant.h"

namespace shoestring {

struct AttentionArgs {
  TensorView o;                   ///< [tokens, heads, v_dim], overwritten
  TensorView lse;                 ///< [heads, tokens] f32 | f64, contiguous, overwritten; the backward pass reads it
  ConstTensorView q;              ///< [tokens, heads, qk_dim]
  ConstTensorView k;              ///< [tokens, kv_heads, qk_dim]
  ConstTensorView v;              ///< [tokens, kv_heads, v_dim]
  ConstTensorView segment_start;  ///< [tokens] i32
  double scale;                   ///< positive; usually qk_dim^-0.5
  Arena& scratch;                 ///< attention_scratch_bytes; given back before the call returns
  Stream& stream;
  /// What segment_start says, where the host knows it: the first token of each document, then `tokens`. Empty: it does
  /// not, and rows that plan by it decline. Read before the call returns.
  std::span<const std::int32_t> document_starts{};
};
void attention_forward(const AttentionArgs& args);

/// Gradients of a loss whose gradient in o is d_o. Sums over the query heads of a group run in head order.
struct AttentionBackwardArgs {
  TensorView dq;        ///< [tokens, heads, qk_dim], overwritten
  TensorView dk;        ///< [tokens, kv_heads, qk_dim], overwritten
  TensorView dv;        ///< [tokens, kv_heads, v_dim], overwritten
  ConstTensorView d_o;  ///< [tokens, heads, v_dim]
  ConstTensorView q;    ///< as in the forward pass, and so the rest
  ConstTensorView k;
  ConstTensorView v;
  ConstTensorView o;
  ConstTensorView lse;
  ConstTensorView segment_start;
  double scale;
  Arena& scratch;
  Stream& stream;
  std::span<const std::int32_t> document_starts{};
};
void attention_backward(const AttentionBackwardArgs& args);

/// The extents scratch depends on. A shorter document or fewer tokens never need more.
struct AttentionShape {
  std::int64_t tokens = 0;
  std::int64_t longest_document = 0;  ///< in tokens; 0 = all tokens may be one document
  std::int64_t heads = 0;
  std::int64_t kv_heads = 0;
  std::int64_t qk_dim = 0;
  std::int64_t v_dim = 0;
};
/// Scratch that forward and backward need at most, whichever variant runs.
std::int64_t attention_scratch_bytes(const AttentionShape& shape, int workers);

// The tables, for tests and benchmarks.
std::span<const Variant<AttentionArgs>> attention_forward_variants();
std::span<const Variant<AttentionBackwardArgs>> attention_backward_variants();

}  // namespace shoestring
