// Keys of multi-head latent attention: every head's own part beside one rotated part that all heads share.
//
//   k[t, h] = [ own[t, h] | shared[t] ]
//   gradient: down[t, h] = dk[t, h, :own],  dshared[t] = sum over h in order of dk[t, h, own:], in f32 (f64 for f64)
//
// Source: DeepSeek-V2 (arXiv 2405.04434), section 2.1.3. Formats: f64, f32 or bf16, all alike. The last dim is dense,
// the others may be strided (slices of fused projections). No result depends on the number of workers.
#pragma once

#include <span>

#include "kernels/base/device.h"
#include "kernels/base/tensor.h"
#include "kernels/base/variant.h"

namespace shoestring {

struct LatentKeyArgs {
  TensorView k{};            ///< [tokens, heads, own + shared], overwritten
  ConstTensorView own{};     ///< [tokens, heads, own]
  ConstTensorView shared{};  ///< [tokens, shared]
  Stream& stream;
};
void latent_key(const LatentKeyArgs& args);

struct LatentKeyGradientArgs {
  TensorView down{};     ///< [tokens, heads, own], overwritten
  TensorView dshared{};  ///< [tokens, shared], overwritten
  ConstTensorView dk{};  ///< [tokens, heads, own + shared]
  Stream& stream;
};
void latent_key_gradient(const LatentKeyGradientArgs& args);

// The tables, for tests and benchmarks.
std::span<const Variant<LatentKeyArgs>> latent_key_variants();
std::span<const Variant<LatentKeyGradientArgs>> latent_key_gradient_variants();

// The rows that live in other files.
namespace latent_key_op::simd {
std::string refuses(const LatentKeyArgs& args);
std::string refuses(const LatentKeyGradientArgs& args);
void join(const LatentKeyArgs& args);
void split(const LatentKeyGradientArgs& args);
}  // namespace latent_key_op::simd
namespace latent_key_op::cuda {
std::string refuses(const LatentKeyArgs& args);
std::string refuses(const LatentKeyGradientArgs& args);
void join(const LatentKeyArgs& args);
void split(const LatentKeyGradientArgs& args);
}  // namespace latent_key_op::cuda

}  // namespace shoestring
