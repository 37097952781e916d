// AdamW on a flat span: one pass over parameter, gradient and moments.
//
//   g = gradient_scale * gradient
//   m = beta1 m + (1 - beta1) g;   v = beta2 v + (1 - beta2) g^2
//   p = p - lr * ( (m / (1 - beta1^step)) / (sqrt(v / (1 - beta2^step)) + eps) + weight_decay p )
//
// Source: Loshchilov, Hutter: "Decoupled Weight Decay Regularization" (2019), algorithm 2 with eta = 1; the decay is
// multiplied by the learning rate, as PyTorch does.
// Element by element, in float with correctly rounded division and square root: every variant gives the same bits.
// bf16 moments are rounded to nearest when stored; this step's update uses them unrounded. With bf16 and beta2 near 1 a
// second moment stops moving once (1 - beta2) g^2 / v < 2^-8: choose beta2 <= 0.99 or f32.
#pragma once

#include <span>

#include "kernels/base/device.h"
#include "kernels/base/tensor.h"
#include "kernels/base/variant.h"

namespace shoestring {

struct AdamwArgs {
  TensorView parameter{};      ///< [n] f32 (or f64 with everything f64), updated
  TensorView first_moment{};   ///< [n] f32 or bf16, updated
  TensorView second_moment{};  ///< [n] f32 or bf16 (as first_moment), updated
  TensorView copy{};           ///< [n] bf16, overwritten with the new parameter; or empty
  ConstTensorView gradient{};  ///< [n] f32
  double gradient_scale;       ///< 1 / trained tokens, times the clip factor
  double learning_rate;
  double beta1;
  double beta2;
  double eps;
  double weight_decay;  ///< 0 for norms, biases
  std::int64_t step;    ///< of this update, from 1
  Stream& stream;
};
void adamw_step(const AdamwArgs& args);
/// One after the other, on one stream; on a device some dozens share a launch.
void adamw_steps(std::span<const AdamwArgs> all);

// The table, for tests and benchmarks.
std::span<const Variant<AdamwArgs>> adamw_step_variants();

namespace adamw {

/// What all elements share, rounded once so that every variant uses the same numbers.
template <class Real>
struct Coefficients {
  Real gradient_scale, beta1, one_minus_beta1, beta2, one_minus_beta2;
  Real step_size;                ///< lr / (1 - beta1^step)
  Real inverse_root_correction;  ///< 1 / sqrt(1 - beta2^step)
  Real eps;
  Real decay;  ///< 1 - lr * weight_decay
};
template <class Real>
Coefficients<Real> coefficients(const AdamwArgs& args);

namespace simd {
std::string refuses(const AdamwArgs& args);
void step(const AdamwArgs& args);
}  // namespace simd
namespace cuda {
std::string refuses(const AdamwArgs& args);
void step(const AdamwArgs& args);
void steps(std::span<const AdamwArgs> all);
}  // namespace cuda
}  // namespace adamw

}  // namespace shoestring
