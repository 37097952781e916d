// Cross-entropy of logits against target ids, with the gradient; sums over tokens, no mean.
//
//   lse = ln sum_i exp(logits[i]),   loss = lse - logits[target]
//   dlogits[i] = scale * weight * (exp(logits[i] - lse) - [i = target])
//
// A row has one weight: how much its token counts, whatever that stands for (a mask, a sample's weight, later a
// reward). It may be 0 or below. Losses are given without it, sums with it. Two forms. Rows: a chunk of rows with the
// whole vocabulary. Chunks: all rows, a chunk of the vocabulary at a time, so that [tokens, vocabulary] never exists
// (running maximum and sum, Milakov & Gimelshein, arXiv 1805.02867). A target of -1 is ignored: loss 0, gradient 0. Any
// other target outside the vocabulary is an Error(bad_data) that names the row; on a device, whose memory the host does
// not read, it makes the loss NaN. Statistics are f32, or f64 with f64 logits. Rows may be strided, columns are
// contiguous.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "kernels/base/device.h"
#include "kernels/base/tensor.h"
#include "kernels/base/variant.h"

namespace shoestring {

struct CrossEntropyArgs {
  TensorView loss;          ///< [rows] f32 | f64, overwritten; 0 where ignored
  TensorView lse;           ///< [rows] f32 | f64, overwritten for every row; may be empty
  TensorView loss_sum;      ///< [1] f64, accumulated in row order over the trained rows: weight * loss; may be empty
  TensorView count;         ///< [1] i64, accumulated: the trained rows; may be empty
  TensorView dlogits;       ///< [rows, vocabulary] of the logits' dtype, or bf16 for f32 logits; may be the logits' own
                            ///< memory if each row begins where its logits do; empty = no gradient (evaluation)
  ConstTensorView logits;   ///< [rows, vocabulary] f64 | f32 | bf16
  ConstTensorView targets;  ///< [rows] i32
  double scale = 1.0;       ///< factor on dlogits
  Stream& stream;
  ConstTensorView weights{};  ///< [rows] f32; empty: 1 each
  TensorView weight_sum{};    ///< [1] f64, accumulated in row order: weights of the trained rows; may be empty
};
void cross_entropy(const CrossEntropyArgs& args);

/// Step 1, once per chunk: folds logits of ids [first_id, first_id + columns) into the running values.
/// Before the first chunk: running_max = -infinity, the others 0 (cross_entropy_begin does it).
struct CrossEntropyChunkArgs {
  TensorView running_max;   ///< [rows] f32 | f64
  TensorView running_sum;   ///< [rows] f32 | f64: sum of exp(logits - running_max)
  TensorView target_logit;  ///< [rows] f32 | f64: written by the chunk that holds the target
  ConstTensorView logits;   ///< [rows, columns] f64 | f32 | bf16
  ConstTensorView targets;  ///< [rows] i32
  std::int64_t first_id = 0;
  Stream& stream;
};
void cross_entropy_begin(const TensorView& running_max, const TensorView& running_sum, const TensorView& target_logit,
                         Stream& stream);
void cross_entropy_chunk(const CrossEntropyChunkArgs& args);

/// Step 2, once: lse and loss from the running values.
struct CrossEntropyFinishArgs {
  TensorView lse;       ///< [rows], overwritten; may be running_max's memory
  TensorView loss;      ///< [rows], overwritten; 0 where ignored
  TensorView loss_sum;  ///< [1] f64, accumulated, weighted; may be empty
  TensorView count;     ///< [1] i64, accumulated; may be empty
  ConstTensorView running_max;
  ConstTensorView running_sum;
  ConstTensorView target_logit;
  ConstTensorView targets;
  std::int64_t vocabulary = 0;  ///< targets are checked against it
  Stream& stream;
  ConstTensorView weights{};  ///< as above, as is the next
  TensorView weight_sum{};
};
void cross_entropy_finish(const CrossEntropyFinishArgs& args);

/// Step 3, once per chunk, for gradients: the same logits again (recomputed or kept).
struct CrossEntropyChunkGradientArgs {
  TensorView dlogits;      ///< [rows, columns] of the logits' dtype, or bf16 for f32 logits; in place as above
  ConstTensorView logits;  ///< [rows, columns]
  ConstTensorView lse;     ///< [rows]
  ConstTensorView targets;
  std::int64_t first_id = 0;
  double scale = 1.0;
  Stream& stream;
  ConstTensorView weights{};
};
void cross_entropy_chunk_gradient(const CrossEntropyChunkGradientArgs& args);

// The tables, for tests and benchmarks, and the rows that live in other files.
std::span<const Variant<CrossEntropyArgs>> cross_entropy_variants();
std::span<const Variant<CrossEntropyChunkArgs>> cross_entropy_chunk_variants();
std::span<const Variant<CrossEntropyFinishArgs>> cross_entropy_finish_variants();
std::span<const Variant<CrossEntropyChunkGradientArgs>> cross_entropy_chunk_gradient_variants();
namespace token_loss {
/// For rows on the CPU.
inline double weight_of(const ConstTensorView& weights, std::int64_t row) {
  return weights.empty() ? 1.0 : static_cast<double>(weights.as<float>()[row]);
}
}  // namespace token_loss
namespace token_loss::simd {
std::string refuses(const CrossEntropyArgs& args);
std::string refuses(const CrossEntropyChunkArgs& args);
std::string refuses(const CrossEntropyChunkGradientArgs& args);
void rows(const CrossEntropyArgs& args);
void chunk(const CrossEntropyChunkArgs& args);
void chunk_gradient(const CrossEntropyChunkGradientArgs& args);
}  // namespace token_loss::simd
namespace token_loss::cuda {
std::string refuses(const CrossEntropyArgs& args);
std::string refuses(const CrossEntropyChunkArgs& args);
std::string refuses(const CrossEntropyFinishArgs& args);
std::string refuses(const CrossEntropyChunkGradientArgs& args);
void rows(const CrossEntropyArgs& args);
void chunk(const CrossEntropyChunkArgs& args);
void finish(const CrossEntropyFinishArgs& args);
void chunk_gradient(const CrossEntropyChunkGradientArgs& args);
}  // namespace token_loss::cuda

}  // namespace shoestring
