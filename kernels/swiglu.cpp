#include "kernels/swiglu.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "kernels/base/check.h"
#include "kernels/base/workers.h"
#include "kernels/cpu_refusals.h"
#include "kernels/element.h"
#include "kernels/swiglu_rows.h"

namespace shoestring {
namespace swiglu::reference {
namespace {

struct Pair {
  double gate, up;
};

// Gate and up of column j of one row, whatever holds them.
template <class In>
Pair read(const ConstScaledView& gate_up, std::int64_t f, std::int64_t row, std::int64_t j) {
  const In* values = gate_up.values.as<In>() + row * gate_up.values.strides[0];
  if constexpr (std::is_same_v<In, E4M3>) {
    const auto value = [&](std::int64_t column) {
      return static_cast<double>(static_cast<float>(values[column]) * tile_scale(gate_up.scales, row, column / 128));
    };
    return {value(j), value(f + j)};
  } else {
    return {widened(values[j]), widened(values[f + j])};
  }
}

struct Clamped {
  double g, u;
  bool gate_passes, up_passes;
};

Clamped clamped(Pair in, float clamp) {
  const double limit = clamp > 0 ? static_cast<double>(clamp) : INFINITY;
  return {std::min(in.gate, limit), std::clamp(in.up, -limit, limit), !(in.gate > limit), !(std::abs(in.up) > limit)};
}

template <class Act>
double weight_of(ConstTensorView row_weight, std::int64_t row) {
  return row_weight.empty() ? 1 : widened(row_weight.as<MathType<Act>>()[row * row_weight.strides[0]]);
}

template <class Act, class In>
void forward_of(const SwigluArgs& args) {
  const std::int64_t f = args.y.shape[1];
  args.stream.workers().split(args.y.shape[0], row_grain(f), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) {
      const double w = weight_of<Act>(args.row_weight, row);
      Act* y = args.y.as<Act>() + row * args.y.strides[0];
      for (std::int64_t j = 0; j < f; ++j) {
        const Clamped c = clamped(read<In>(args.gate_up, f, row, j), args.clamp);
        y[j] = rounded_to<Act>(w * (c.g / (1 + std::exp(-c.g))) * c.u);
      }
    }
  });
}

template <class Act, class In>
void gradient_row(const SwigluGradientArgs& args, std::int64_t row) {
  const std::int64_t f = args.dy.shape[1];
  const double w = weight_of<Act>(args.row_weight, row);
  const Act* dy = args.dy.as<Act>() + row * args.dy.strides[0];
  Act* dgate = args.dgate_up.as<Act>() + row * args.dgate_up.strides[0];
  Act* y = args.y.empty() ? nullptr : args.y.as<Act>() + row * args.y.strides[0];
  double dw = 0;
  for (std::int64_t j = 0; j < f; ++j) {
    const Clamped c = clamped(read<In>(args.gate_up, f, row, j), args.clamp);
    const double s = 1 / (1 + std::exp(-c.g));
    const double a = c.g * s;
    const double gradient = widened(dy[j]);
    dw += gradient * a * c.u;
    const double slope = s * (1 + c.g / (1 + std::exp(c.g)));
    dgate[j] = rounded_to<Act>(c.gate_passes ? w * gradient * c.u * slope : 0);
    dgate[f + j] = rounded_to<Act>(c.up_passes ? w * gradient * a : 0);
    if (y != nullptr) y[j] = rounded_to<Act>(w * a * c.u);
  }
  if (!args.drow_weight.empty()) {
    args.drow_weight.as<MathType<Act>>()[row * args.drow_weight.strides[0]] = static_cast<MathType<Act>>(dw);
  }
}

template <class Act, class In>
void gradient_of(const SwigluGradientArgs& args) {
  const auto row_body = [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) gradient_row<Act, In>(args, row);
  };
  args.stream.workers().split(args.dy.shape[0], row_grain(args.dy.shape[1]), row_body);
}

void forward(const SwigluArgs& args) {
  const bool tiled = args.gate_up.values.dtype == DType::e4m3;
  switch (args.y.dtype) {
    case DType::f64: return forward_of<double, double>(args);
    case DType::f32: return tiled ? forward_of<float, E4M3>(args) : forward_of<float, float>(args);
    default: return tiled ? forward_of<BFloat16, E4M3>(args) : forward_of<BFloat16, BFloat16>(args);
  }
}

void gradient(const SwigluGradientArgs& args) {
  const bool tiled = args.gate_up.values.dtype == DType::e4m3;
  switch (args.dy.dtype) {
    case DType::f64: return gradient_of<double, double>(args);
    case DType::f32: return tiled ? gradient_of<float, E4M3>(args) : gradient_of<float, float>(args);
    default: return tiled ? gradient_of<BFloat16, E4M3>(args) : gradient_of<BFloat16, BFloat16>(args);
  }
}

}  // namespace
}  // namespace swiglu::reference

namespace {

constexpr std::array kForward = std::to_array<Variant<SwigluArgs>>({
#if SHOESTRING_CUDA
  {"cuda", swiglu::cuda::refuses, swiglu::cuda::forward},
#endif
#if defined(__x86_64__)
#endif
      {"simd", swiglu::simd::refuses, swiglu::simd::forward},
      {"reference", needs_cpu<SwigluArgs>, swiglu::reference::forward},
});
constexpr std::array kGradient = std::to_array<Variant<SwigluGradientArgs>>({
#if SHOESTRING_CUDA
  {"cuda", swiglu::cuda::refuses, swiglu::cuda::gradient},
#endif
#if defined(__x86_64__)
#endif
      {"simd", swiglu::simd::refuses, swiglu::simd::gradient},
      {"reference", needs_cpu<SwigluGradientArgs>, swiglu::reference::gradient},
});

void check_matrix(ConstTensorView view, std::int64_t rows, std::int64_t columns, DType dtype, const char* what) {
  check(view.shape == Shape{rows, columns} && view.dtype == dtype && (view.strides[1] == 1 || columns <= 1),
        "swiglu: {} is {}, expected {} [{}, {}] with dense columns", what, view, name(dtype), rows, columns);
}

// `act` is y in forward, dy in the gradient: [rows, f].
void check_inputs(ConstTensorView act, const ConstScaledView& gate_up, ConstTensorView row_weight) {
  check(act.shape.rank() == 2 && (act.dtype == DType::f64 || act.dtype == DType::f32 || act.dtype == DType::bf16),
        "swiglu: activations are {}", act);
  const std::int64_t rows = act.shape[0];
  const std::int64_t f = act.shape[1];
  check_matrix(act, rows, f, act.dtype, "y or dy");
  const bool tiled = gate_up.values.dtype == DType::e4m3;
  check_matrix(gate_up.values, rows, 2 * f, tiled ? DType::e4m3 : act.dtype, "gate_up");
  if (tiled) {
    check(act.dtype != DType::f64, "swiglu: f64 activations from e4m3");
    check(f % 128 == 0 && gate_up.granularity == kRowTile128 && gate_up.scales.shape == Shape{rows, f / 64} &&
              (gate_up.scales.dtype == DType::f32 || gate_up.scales.dtype == DType::e8m0),
          "swiglu: e4m3 gate_up {} needs 1x128 scales, not {}", gate_up.values, gate_up.scales);
  }
  const DType weight = act.dtype == DType::f64 ? DType::f64 : DType::f32;
  check(row_weight.empty() || (row_weight.shape == Shape{rows} && row_weight.dtype == weight),
        "swiglu: row weights are {} for {} rows", row_weight, rows);
}

}  // namespace

void swiglu_forward(const SwigluArgs& args) {
  if (args.y.elements() == 0) return;
  check_inputs(args.y, args.gate_up, args.row_weight);
  choose("swiglu_forward", kForward, args).run(args);
}

void swiglu_gradient(const SwigluGradientArgs& args) {
  if (args.dy.elements() == 0) return;
  check_inputs(args.dy, args.gate_up, args.row_weight);
  const std::int64_t rows = args.dy.shape[0];
  const std::int64_t f = args.dy.shape[1];
  check_matrix(args.dgate_up, rows, 2 * f, args.dy.dtype, "dgate_up");
  if (!args.y.empty()) check_matrix(args.y, rows, f, args.dy.dtype, "y");
  const DType weight = args.dy.dtype == DType::f64 ? DType::f64 : DType::f32;
  check(args.drow_weight.empty() || (args.drow_weight.shape == Shape{rows} && args.drow_weight.dtype == weight),
        "swiglu: drow_weight is {} for {} rows", args.drow_weight, rows);
  choose("swiglu_gradient", kGradient, args).run(args);
}

std::span<const Variant<SwigluArgs>> swiglu_forward_variants() { return kForward; }
std::span<const Variant<SwigluGradientArgs>> swiglu_gradient_variants() { return kGradient; }

}  // namespace shoestring
