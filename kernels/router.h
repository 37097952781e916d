// The router of a mixture of experts: from logits to k experts a token and their weights. Loads: router_load.h.
//
// Score:      softmax over all experts | sigmoid | sqrt(softplus)                        s_e
// Selection:  by s_e + bias_e. With groups > 1 (equal parts of the experts, in order), a group's score is the sum of
//             its two best biased scores, or with group_by_best its best one (DeepSeek-V2); only the best topk_groups
//             groups take part. Then the k best experts. Every tie goes to the lower index. Slots are in falling order
//             of the biased score.
// Weight:     from the unbiased score: w = scale * s_e, or with `normalize` scale * s_e / (sum of the k scores + 1e-20)
//
// Sources: DeepSeek-V3 (arXiv 2412.19437) section 2.1.2 and its published inference code (two best per group, biased);
// Qwen3-MoE, Mixtral: softmax, then top-k, then `normalize`.
// Formats: logits, scores, weights f32, or all f64; bias f32 in both (f64 also accepted in f64 runs). Math is double in
// the reference's scores and gradients, f32 in the vector rows. Tensors are dense, but logits and dlogits may have
// strided rows. A NaN ranks below everything and comes out as weight NaN. At most kRouterMaxExperts experts. A token's
// result depends on no other token, and not on the number of workers.
#pragma once

#include <span>

#include "kernels/base/device.h"
#include "kernels/base/tensor.h"
#include "kernels/base/variant.h"

namespace shoestring {

inline constexpr std::int64_t kRouterMaxExperts = 1024;

enum class RouterKind : std::uint8_t { softmax, sigmoid, sqrt_softplus };

struct RouterArgs {
  TensorView indices{};      ///< [tokens, k] i32, overwritten
  TensorView weights{};      ///< [tokens, k], overwritten
  TensorView scores{};       ///< [tokens, experts], overwritten; saved for the gradient
  ConstTensorView logits{};  ///< [tokens, experts]
  ConstTensorView bias{};    ///< [experts], or empty for 0
  RouterKind kind = RouterKind::softmax;
  std::int64_t groups = 1;       ///< 1 = no groups
  std::int64_t topk_groups = 1;  ///< how many groups take part; experts / groups * topk_groups >= k
  bool group_by_best = false;    ///< a group's score is its best expert's
  bool normalize = false;
  float scale = 1;
  Stream& stream;
};
void router_forward(const RouterArgs& args);

/// dlogits from dweights, and from the sequence-wise balance loss where `load` is given. The selection itself has no
/// gradient, nor has the bias.
struct RouterGradientArgs {
  TensorView dlogits{};        ///< [tokens, experts], overwritten
  ConstTensorView dweights{};  ///< [tokens, k]
  ConstTensorView indices{};   ///< [tokens, k] i32
  ConstTensorView scores{};    ///< [tokens, experts]
  RouterKind kind = RouterKind::softmax;
  bool normalize = false;
  float scale = 1;
  ConstTensorView load{};             ///< [sequences, experts], from router_balance_loss; or empty
  ConstTensorView sequence_starts{};  ///< [sequences + 1] i32; or empty
  float alpha = 0;                    ///< of the balance loss
  Stream& stream;
};
void router_gradient(const RouterGradientArgs& args);

// The tables, for tests and benchmarks.
std::span<const Variant<RouterArgs>> router_forward_variants();
std::span<const Variant<RouterGradientArgs>> router_gradient_variants();

// The rows that live in other files.
namespace router::simd {
std::string refuses(const RouterArgs& args);
void forward(const RouterArgs& args);
std::string refuses_gradient(const RouterGradientArgs& args);
void gradient(const RouterGradientArgs& args);
}  // namespace router::simd
namespace router::cuda {
std::string refuses(const RouterArgs& args);
std::string refuses(const RouterGradientArgs& args);
void forward(const RouterArgs& args);
void gradient(const RouterGradientArgs& args);
}  // namespace router::cuda

}  // namespace shoestring
