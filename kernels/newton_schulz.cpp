#include "kernels/newton_schulz.h"

#include <algorithm>
#include <cmath>

#include "kernels/base/check.h"
#include "kernels/base/workers.h"
#include "kernels/element.h"
#include "kernels/gemm.h"
#include "kernels/reduce.h"

namespace shoestring {
namespace {

constexpr std::int64_t kGrain = 16384;

// The matrices of one iteration; X is wide: `small` rows, `large` columns.
struct Buffers {
  TensorView x;   // [small, large] operand format
  TensorView bx;  // [small, large] sums: B X
  TensorView a;   // [small, small] operand format: X X^T, then B
  TensorView a2;  // [small, small] sums: A, then A^2
};

DType sum_format(DType product) { return product == DType::f64 ? DType::f64 : DType::f32; }

template <class Operand, class Real>
struct Iteration {
  const NewtonSchulzArgs& args;
  const Buffers& on;
  bool transpose;  // the matrix is tall

  Workers& workers() const { return args.stream.workers(); }
  std::int64_t small() const { return on.x.shape[0]; }
  std::int64_t large() const { return on.x.shape[1]; }
  // Where element (i, j) of X lies in the caller's matrix.
  std::int64_t outside(std::int64_t i, std::int64_t j) const { return transpose ? j * small() + i : i * large() + j; }

  // X = M / (||M||_F + 1e-7)
  void begin(ConstTensorView matrix) const {
    const double norm = std::sqrt(sum_of_squares(matrix, args.stream)) + 1e-7;
    const Real factor = static_cast<Real>(1 / norm);
    const Real* from = matrix.as<Real>();
    Operand* x = on.x.as<Operand>();
    workers().split(small(), kGrain / large() + 1, [&](std::int64_t first, std::int64_t last) {
      for (std::int64_t i = first; i < last; ++i) {
        for (std::int64_t j = 0; j < large(); ++j) x[i * large() + j] = Operand(from[outside(i, j)] * factor);
      }
    });
  }

  void product(TensorView c, ConstTensorView left, ConstTensorView right) const {
    gemm({.c = c,
          .a = unscaled(left),
          .b = unscaled(right),
          .bias = {},
          .scratch = args.scratch,
          .stream = args.stream});
  }

  // a = the sums rounded to operands, or b a + c a2 when the sums hold A^2.
  void round_a(bool polynomial) const {
    const Real b = static_cast<Real>(kNewtonSchulzCoefficients[1]);
    const Real c = static_cast<Real>(kNewtonSchulzCoefficients[2]);
    Operand* a = on.a.as<Operand>();
    const Real* sums = on.a2.as<Real>();
    workers().split(small() * small(), kGrain, [&](std::int64_t first, std::int64_t last) {
      for (std::int64_t i = first; i < last; ++i) {
        a[i] = Operand(polynomial ? std::fma(c, sums[i], b * static_cast<Real>(a[i])) : sums[i]);
      }
    });
  }

  // X = a X + B X, into X or, unrounded, into the caller's update.
  void finish_step(TensorView update) const {
    const Real a = static_cast<Real>(kNewtonSchulzCoefficients[0]);
    Operand* x = on.x.as<Operand>();
    const Real* bx = on.bx.as<Real>();
    Real* out = update.as<Real>();
    workers().split(small(), kGrain / large() + 1, [&](std::int64_t first, std::int64_t last) {
      for (std::int64_t i = first; i < last; ++i) {
        for (std::int64_t j = 0; j < large(); ++j) {
          const std::int64_t at = i * large() + j;
          const Real value = std::fma(a, static_cast<Real>(x[at]), bx[at]);
          if (out == nullptr) {
            x[at] = Operand(value);
          } else {
            out[outside(i, j)] = value;
          }
        }
      }
    });
  }

  void run(TensorView update, ConstTensorView matrix) const {
    begin(matrix);
    for (int step = 1; step <= args.steps; ++step) {
      product(on.a2, on.x, on.x);  // A = X X^T
      round_a(false);
      product(on.a2, on.a, on.a);  // A^2 = A A^T: A is symmetric
      round_a(true);
      product(on.bx, on.a, on.x.transposed());  // B X
      finish_step(step == args.steps ? update : TensorView{});
    }
  }
};

ConstTensorView matrix_of(ConstTensorView stack, std::int64_t index) {
  ConstTensorView one = stack.shape.rank() == 3 ? stack.slice(0, index, 1) : stack;
  const int rank = stack.shape.rank();
  return one.reshaped({stack.shape[rank - 2], stack.shape[rank - 1]});
}

TensorView matrix_of(TensorView stack, std::int64_t index) {
  const ConstTensorView one = matrix_of(ConstTensorView(stack), index);
  return {const_cast<void*>(one.data), one.shape, one.strides, one.dtype, one.device};
}

void check_args(const NewtonSchulzArgs& args) {
  const ConstTensorView& m = args.matrix;
  check(args.stream.device().kind == DeviceKind::cpu, "newton_schulz runs on a CPU stream only");
  check(m.shape.rank() == 2 || m.shape.rank() == 3, "newton_schulz: the matrix is {}", m.to_string());
  check(args.update.shape == m.shape && args.update.dtype == m.dtype && args.update.contiguous() && m.contiguous(),
        "newton_schulz: update {} for matrix {}", args.update.to_string(), m.to_string());
  check((m.dtype == DType::f64 && args.product == DType::f64) ||
            (m.dtype == DType::f32 && (args.product == DType::f32 || args.product == DType::bf16)),
        "newton_schulz: {} products of a {} matrix", name(args.product), name(m.dtype));
  check(args.steps >= 1, "newton_schulz: {} steps", args.steps);
}

}  // namespace

std::int64_t newton_schulz_scratch_bytes(std::int64_t rows, std::int64_t columns, DType matrix, DType product) {
  const std::int64_t small = std::min(rows, columns);
  const std::int64_t large = std::max(rows, columns);
  return Arena::footprint(small * large * size_bytes(product)) + Arena::footprint(small * large * size_bytes(matrix)) +
         Arena::footprint(small * small * size_bytes(product)) + Arena::footprint(small * small * size_bytes(matrix));
}

std::int64_t newton_schulz_product_bytes(std::int64_t rows, std::int64_t columns, int workers) {
  const std::int64_t small = std::min(rows, columns);
  const std::int64_t large = std::max(rows, columns);
  return std::max({gemm_scratch_bytes(small, small, large, workers, false),
                   gemm_scratch_bytes(small, small, small, workers, false),
                   gemm_scratch_bytes(small, large, small, workers, false)});
}

void newton_schulz(const NewtonSchulzArgs& args) {
  check_args(args);
  if (args.matrix.elements() == 0) return;
  const int rank = args.matrix.shape.rank();
  const std::int64_t rows = args.matrix.shape[rank - 2];
  const std::int64_t columns = args.matrix.shape[rank - 1];
  const std::int64_t small = std::min(rows, columns);
  const std::int64_t large = std::max(rows, columns);
  const Arena::Scope scope(args.scratch);
  const DType sums = sum_format(args.product);
  const Buffers on{.x = args.scratch.take(args.product, {small, large}),
                   .bx = args.scratch.take(sums, {small, large}),
                   .a = args.scratch.take(args.product, {small, small}),
                   .a2 = args.scratch.take(sums, {small, small})};
  for (std::int64_t index = 0; index < (rank == 3 ? args.matrix.shape[0] : 1); ++index) {
    const TensorView update = matrix_of(args.update, index);
    const ConstTensorView matrix = matrix_of(args.matrix, index);
    switch (args.product) {
      case DType::f64: Iteration<double, double>{args, on, rows > columns}.run(update, matrix); break;
      case DType::f32: Iteration<float, float>{args, on, rows > columns}.run(update, matrix); break;
      default: Iteration<BFloat16, float>{args, on, rows > columns}.run(update, matrix); break;
    }
  }
}

}  // namespace shoestring
