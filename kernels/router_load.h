// How evenly a router spreads tokens over experts: counts, the balance loss, and the bias that moves the selection.
// Formats as in router.h.
#pragma once

#include <span>

#include "kernels/base/device.h"
#include "kernels/base/tensor.h"
#include "kernels/base/variant.h"

namespace shoestring {

/// The sequence-wise balance loss (DeepSeek-V3 equations 17 to 20), as a sum over tokens like every loss here:
///   sum over sequences of T * alpha * sum_e f_e P_e,   f_e = experts / (k T) * (tokens that chose e),
///   P_e = mean over the sequence's tokens of s_e / sum_j s_j.
/// Sequence q holds the tokens [sequence_starts[q], sequence_starts[q + 1]); the first start is 0, the last is tokens.
struct RouterBalanceArgs {
  TensorView loss{};                  ///< f64 [1], added to
  TensorView losses{};                ///< f64 [sequences], overwritten with each sequence's; or empty on a CPU
  TensorView load{};                  ///< [sequences, experts] as scores, overwritten with f_e
  ConstTensorView indices{};          ///< [tokens, k] i32
  ConstTensorView scores{};           ///< [tokens, experts]
  ConstTensorView sequence_starts{};  ///< [sequences + 1] i32
  float alpha = 0;
  Stream& stream;
};
void router_balance_loss(const RouterBalanceArgs& args);

/// counts[e] += number of slots that chose expert e. counts [experts] i64; indices [tokens, k] i32, negative = no
/// expert. An index past the experts is an Error(bug) on a CPU, and not counted on a device.
void router_count_load(TensorView counts, ConstTensorView indices, Stream& stream);
struct RouterCountArgs {
  TensorView counts{};
  ConstTensorView indices{};
  Stream& stream;
};

/// bias[e] += speed * sign(mean load - counts[e]): once per step, from the counts of the whole batch over all ranks.
/// Compared exactly, in integers. bias [experts] f32 or f64; counts [experts] i64.
void router_update_bias(TensorView bias, ConstTensorView counts, float speed, Stream& stream);
struct RouterBiasArgs {
  TensorView bias{};
  ConstTensorView counts{};
  float speed;
  Stream& stream;
};

/// max load / mean load - 1 (arXiv 2408.15664); 0 without load. counts [experts] i64, host memory.
double router_max_violation(ConstTensorView counts);

// The tables, for tests and benchmarks.
std::span<const Variant<RouterBalanceArgs>> router_balance_loss_variants();
std::span<const Variant<RouterCountArgs>> router_count_load_variants();
std::span<const Variant<RouterBiasArgs>> router_update_bias_variants();

// The rows that live in other files.
namespace router::cuda {
std::string refuses(const RouterBalanceArgs& args);
std::string refuses(const RouterCountArgs& args);
std::string refuses(const RouterBiasArgs& args);
void balance(const RouterBalanceArgs& args);
void count(const RouterCountArgs& args);
void update_bias(const RouterBiasArgs& args);
}  // namespace router::cuda

namespace router {
/// Refuses starts that are not of these scores; their values on a CPU only.
void check_sequences(ConstTensorView load, ConstTensorView starts, ConstTensorView scores);
}  // namespace router

}  // namespace shoestring
