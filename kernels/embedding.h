// Embedding: a row of the table for every token, and the gradient of the table.
//
//   y[t] = table[ids[t]]          dtable[i] += sum over t with ids[t] = i of dy[t], in token order
//
// An id outside the table is an Error(bad_data) that names the token and the id, thrown before anything is written.
#pragma once

#include <span>
#include <string>

#include "kernels/base/device.h"
#include "kernels/base/tensor.h"
#include "kernels/base/variant.h"

namespace shoestring {

struct EmbeddingArgs {
  TensorView y;           ///< [tokens, hidden] f64 | f32 | bf16, rows may be strided; overwritten
  ConstTensorView table;  ///< [vocabulary, hidden] f64 | f32 | bf16, rows may be strided; rounded once to y's dtype
  ConstTensorView ids;    ///< [tokens] i32
  Stream& stream;
};
void embedding_forward(const EmbeddingArgs& args);

struct EmbeddingBackwardArgs {
  TensorView dtable;   ///< [vocabulary, hidden] f32 (f64 when dy is f64), accumulated
  ConstTensorView dy;  ///< [tokens, hidden] f64 | f32 | bf16
  ConstTensorView ids;
  Stream& stream;
};
void embedding_backward(const EmbeddingBackwardArgs& args);

// The tables, for tests and benchmarks, and the rows that live in other files.
std::span<const Variant<EmbeddingArgs>> embedding_forward_variants();
std::span<const Variant<EmbeddingBackwardArgs>> embedding_backward_variants();
namespace embedding::simd {
std::string refuses(const EmbeddingArgs& args);
std::string refuses(const EmbeddingBackwardArgs& args);
void forward(const EmbeddingArgs& args);
void backward(const EmbeddingBackwardArgs& args);
}  // namespace embedding::simd
namespace embedding::cuda {
std::string refuses(const EmbeddingArgs& args);
std::string refuses(const EmbeddingBackwardArgs& args);
void forward(const EmbeddingArgs& args);
void backward(const EmbeddingBackwardArgs& args);
}  // namespace embedding::cuda

}  // namespace shoestring
