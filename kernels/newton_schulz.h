// Muon's orthogonalisation: an odd quintic polynomial drives all singular values of a matrix towards 1.
//
//   X = M / (||M||_F + 1e-7);   steps times:  A = X X^T,  B = b A + c A^2,  X = a X + B X
//   (a, b, c) = (3.4445, -4.7750, 2.0315); a matrix with more rows than columns is iterated as its transpose.
//
// After 5 steps the singular values lie in about [0.68, 1.14] where they began above ~3e-3 of the norm; smaller ones
// are multiplied by at most 3.4445 a step. Source: Jordan et al., "Muon: an optimizer for hidden layers" (2024).
// Products run on kernels/gemm.h in bf16 (the usual choice: X, A and B are rounded to bf16 as operands; sums, A^2 and
// the last X are f32) or f32; f64 matrices use f64 throughout. A and A^2 are symmetric: half of each is computed. Scale
// the result yourself (e.g. by sqrt(max(1, rows / columns)) or 0.2 sqrt(max)).
#pragma once

#include "kernels/base/device.h"
#include "kernels/base/memory.h"
#include "kernels/base/tensor.h"

namespace shoestring {

struct NewtonSchulzArgs {
  TensorView update{};       ///< [rows, columns] f32 (f64), dense, overwritten; may be `matrix`
  ConstTensorView matrix{};  ///< the same shape and format
  int steps;                 ///< 5 is usual
  DType product;             ///< operand format of the products: bf16 or f32 (f64 for f64)
  Arena& scratch;            ///< as much as a dry run says; given back on return
  Stream& stream;
};
void newton_schulz(const NewtonSchulzArgs& args);

inline constexpr double kNewtonSchulzCoefficients[3] = {3.4445, -4.7750, 2.0315};

}  // namespace shoestring
