#include "kernels/newton_schulz.h"

#include <algorithm>

#include "kernels/base/check.h"
#include "kernels/gemm.h"
#include "kernels/reduce.h"

namespace shoestring {
namespace {

DType sum_format(DType product) { return product == DType::f64 ? DType::f64 : DType::f32; }

/// What one matrix is iterated in.
struct Buffers {
  TensorView x;         // [rows, columns] operand format
  TensorView bx;        // [rows, columns] sums: B X, or X B of a tall matrix
  TensorView a;         // [small, small] operand format: A, then B; symmetric
  TensorView a2;        // [small, small] sums: A^2
  TensorView squares;   // f64 [1]
  TensorView partials;  // f64 [reduce::kMaxBlocks]
};

void product(const NewtonSchulzArgs& args, TensorView c, ConstTensorView left, ConstTensorView right) {
  gemm({.c = c, .a = unscaled(left), .b = unscaled(right), .bias = {}, .scratch = args.scratch, .stream = args.stream});
}

/// c = x x^T.
void square(const NewtonSchulzArgs& args, TensorView c, ConstTensorView x) {
  gemm({.c = c,
        .a = unscaled(x),
        .b = unscaled(x),
        .bias = {},
        .symmetric = true,
        .scratch = args.scratch,
        .stream = args.stream});
}

// A tall matrix is iterated as the transpose of its transpose: A = X^T X on the small side, X B instead of B X.
void iterate(const NewtonSchulzArgs& args, const Buffers& on) {
  const auto [a, b, c] = kNewtonSchulzCoefficients;
  const bool tall = on.x.shape[0] > on.x.shape[1];
  const ConstTensorView across = tall ? on.x.transposed() : on.x;
  reduce_into(on.squares, on.partials, ReduceKind::sum_of_squares, args.matrix, args.stream);
  normalise(on.x, args.matrix, on.squares, 1e-7, args.stream);
  for (int step = 1; step <= args.steps; ++step) {
    square(args, on.a, across);
    square(args, on.a2, on.a);
    axpby(on.a, c, on.a2, b, on.a, args.stream);
    tall ? product(args, on.bx, on.x, on.a) : product(args, on.bx, on.a, on.x.transposed());
    axpby(step == args.steps ? args.update : on.x, a, on.x, 1, on.bx, args.stream);
  }
}

void check_args(const NewtonSchulzArgs& args) {
  const ConstTensorView& m = args.matrix;
  check(m.shape.rank() == 2, "newton_schulz: the matrix is {}", m);
  check(args.update.shape == m.shape && args.update.dtype == m.dtype && args.update.contiguous() && m.contiguous(),
        "newton_schulz: update {} for matrix {}", args.update, m);
  check((m.dtype == DType::f64 && args.product == DType::f64) ||
            (m.dtype == DType::f32 && (args.product == DType::f32 || args.product == DType::bf16)),
        "newton_schulz: {} products of a {} matrix", name(args.product), name(m.dtype));
  check(args.steps >= 1, "newton_schulz: {} steps", args.steps);
}

}  // namespace

void newton_schulz(const NewtonSchulzArgs& args) {
  check_args(args);
  if (args.matrix.elements() == 0) return;
  const Shape& shape = args.matrix.shape;
  const std::int64_t small = std::min(shape[0], shape[1]);
  const Arena::Scope scope(args.scratch);
  const DType sums = sum_format(args.product);
  iterate(args, {.x = args.scratch.take(args.product, shape),
                 .bx = args.scratch.take(sums, shape),
                 .a = args.scratch.take(args.product, {small, small}),
                 .a2 = args.scratch.take(sums, {small, small}),
                 .squares = args.scratch.take(DType::f64, {1}),
                 .partials = args.scratch.take(DType::f64, {reduce::kMaxBlocks})});
}

}  // namespace shoestring
