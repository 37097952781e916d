#include "kernels/rms_norm.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "kernels/base/check.h"
#include "kernels/base/workers.h"
#include "kernels/cpu_refusals.h"
#include "kernels/element.h"
#include "kernels/rms_norm_quantize.h"
#include "kernels/rms_norm_rows.h"

namespace shoestring {
namespace rms_norm::reference {
namespace {

template <class Act>
void forward_of(const RmsNormArgs& args) {
  using Stat = MathType<Act>;
  const std::int64_t width = row_width(args.x);
  const Rows<Act, ConstTensorView> x(args.x), residual(args.residual);
  const Rows<Act, TensorView> y(args.y), sum(args.sum);
  const RowStatistics<Stat, TensorView> rstd(args.rstd);
  const Stat* gamma = args.gamma.as<Stat>();
  args.stream.workers().split(row_count(args.x), row_grain(width), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) {
      const Act* s = x[row];
      if (residual[row] != nullptr) {
        for (std::int64_t j = 0; j < width; ++j)
          sum[row][j] = rounded_to<Act>(widened(s[j]) + widened(residual[row][j]));
        s = sum[row];
      }
      double squares = 0;
      for (std::int64_t j = 0; j < width; ++j) squares += widened(s[j]) * widened(s[j]);
      const double r = 1 / std::sqrt(squares / static_cast<double>(width) + static_cast<double>(args.eps));
      if (rstd) rstd[row] = static_cast<Stat>(r);
      for (std::int64_t j = 0; j < width; ++j) y[row][j] = rounded_to<Act>(widened(s[j]) * r * widened(gamma[j]));
    }
  });
}

template <class Act>
void input_gradient_of(const RmsNormInputGradientArgs& args) {
  using Stat = MathType<Act>;
  const std::int64_t width = row_width(args.x);
  const Rows<Act, ConstTensorView> x(args.x), dy(args.dy);
  const Rows<Act, TensorView> dx(args.dx);
  const RowStatistics<Stat, ConstTensorView> rstd(args.rstd);
  const Stat* gamma = args.gamma.as<Stat>();
  args.stream.workers().split(row_count(args.x), row_grain(width), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) {
      const double r = widened(rstd[row]);
      double mean = 0;
      for (std::int64_t j = 0; j < width; ++j) mean += widened(dy[row][j]) * widened(gamma[j]) * widened(x[row][j]) * r;
      mean /= static_cast<double>(width);
      for (std::int64_t j = 0; j < width; ++j) {
        const double gradient = r * (widened(dy[row][j]) * widened(gamma[j]) - widened(x[row][j]) * r * mean);
        dx[row][j] = rounded_to<Act>(args.accumulate ? widened(dx[row][j]) + gradient : gradient);
      }
    }
  });
}

template <class Act>
void weight_gradient_of(const RmsNormWeightGradientArgs& args) {
  using Stat = MathType<Act>;
  const Rows<Act, ConstTensorView> x(args.x), dy(args.dy);
  const RowStatistics<Stat, ConstTensorView> rstd(args.rstd);
  Stat* dgamma = args.dgamma.as<Stat>();
  const std::int64_t rows = row_count(args.x);
  args.stream.workers().split(row_width(args.x), 32, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t j = begin; j < end; ++j) {
      for (std::int64_t block = 0; block < rows; block += kRmsNormRowBlock) {
        double sum = 0;
        for (std::int64_t row = block; row < std::min(rows, block + kRmsNormRowBlock); ++row) {
          sum += widened(dy[row][j]) * widened(x[row][j]) * widened(rstd[row]);
        }
        dgamma[j] = static_cast<Stat>(widened(dgamma[j]) + sum);
      }
    }
  });
}

void forward(const RmsNormArgs& args) {
  switch (args.x.dtype) {
    case DType::f64: return forward_of<double>(args);
    case DType::f32: return forward_of<float>(args);
    default: return forward_of<BFloat16>(args);
  }
}

void input_gradient(const RmsNormInputGradientArgs& args) {
  switch (args.x.dtype) {
    case DType::f64: return input_gradient_of<double>(args);
    case DType::f32: return input_gradient_of<float>(args);
    default: return input_gradient_of<BFloat16>(args);
  }
}

void weight_gradient(const RmsNormWeightGradientArgs& args) {
  switch (args.x.dtype) {
    case DType::f64: return weight_gradient_of<double>(args);
    case DType::f32: return weight_gradient_of<float>(args);
    default: return weight_gradient_of<BFloat16>(args);
  }
}

}  // namespace
}  // namespace rms_norm::reference

namespace {

constexpr std::array kForward = std::to_array<Variant<RmsNormArgs>>({
#if SHOESTRING_CUDA
  {"cuda", rms_norm::cuda::refuses, rms_norm::cuda::forward},
#endif
#if defined(__x86_64__)
#endif
      {"simd", rms_norm::simd::refuses, rms_norm::simd::forward},
      {"reference", needs_cpu<RmsNormArgs>, rms_norm::reference::forward},
});
constexpr std::array kInputGradient = std::to_array<Variant<RmsNormInputGradientArgs>>({
#if SHOESTRING_CUDA
  {"cuda", rms_norm::cuda::refuses, rms_norm::cuda::input_gradient},
#endif
#if defined(__x86_64__)
#endif
      {"simd", rms_norm::simd::refuses, rms_norm::simd::input_gradient},
      {"reference", needs_cpu<RmsNormInputGradientArgs>, rms_norm::reference::input_gradient},
});
constexpr std::array kWeightGradient = std::to_array<Variant<RmsNormWeightGradientArgs>>({
#if SHOESTRING_CUDA
  {"cuda", rms_norm::cuda::refuses, rms_norm::cuda::weight_gradient},
#endif
#if defined(__x86_64__)
#endif
      {"simd", rms_norm::simd::refuses, rms_norm::simd::weight_gradient},
      {"reference", needs_cpu<RmsNormWeightGradientArgs>, rms_norm::reference::weight_gradient},
});

void check_activations(ConstTensorView view, ConstTensorView x, const char* what) {
  const int last = x.shape.rank() - 1;
  check(view.shape == x.shape && view.dtype == x.dtype, "rms_norm: {} is {}, x is {}", what, view, x);
  check(view.strides[last] == 1 || view.shape[last] <= 1, "rms_norm: the last dim of {} has stride {}", what,
        view.strides[last]);
}

// What all three directions share: x itself, one statistic per row, one weight per column.
void check_rows(ConstTensorView x, ConstTensorView rstd, ConstTensorView gamma) {
  const int rank = x.shape.rank();
  check(rank == 2 || rank == 3, "rms_norm: x is [tokens, hidden] or [tokens, heads, dim], not {}", x);
  check(x.dtype == DType::f64 || x.dtype == DType::f32 || x.dtype == DType::bf16, "rms_norm: x is {}", x);
  const DType statistic = x.dtype == DType::f64 ? DType::f64 : DType::f32;
  const Shape rows = rank == 2 ? Shape{x.shape[0]} : Shape{x.shape[0], x.shape[1]};
  check(rstd.empty() || (rstd.shape == rows && rstd.dtype == statistic), "rms_norm: rstd is {} for x {}", rstd, x);
  check(gamma.shape == Shape{x.shape[rank - 1]} && gamma.dtype == statistic && gamma.contiguous(),
        "rms_norm: gamma or its gradient is {} for x {}", gamma, x);
}

}  // namespace

void rms_norm::check_forward(const RmsNormArgs& args) {
  check_rows(args.x, args.rstd, args.gamma);
  check_activations(args.x, args.x, "x");
  check(args.residual.empty() == args.sum.empty(), "rms_norm: residual and sum come together");
  if (!args.residual.empty()) {
    check_activations(args.residual, args.x, "residual");
    check_activations(args.sum, args.x, "sum");
  }
}

void rms_norm_forward(const RmsNormArgs& args) {
  if (args.x.elements() == 0) return;
  rms_norm::check_forward(args);
  check_activations(args.y, args.x, "y");
  choose("rms_norm_forward", kForward, args).run(args);
}

void rms_norm_input_gradient(const RmsNormInputGradientArgs& args) {
  if (args.x.elements() == 0) return;
  check(!args.rstd.empty(), "rms_norm: the gradient needs rstd");
  check_rows(args.x, args.rstd, args.gamma);
  check_activations(args.x, args.x, "x");
  check_activations(args.dy, args.x, "dy");
  check_activations(args.dx, args.x, "dx");
  choose("rms_norm_input_gradient", kInputGradient, args).run(args);
}

void rms_norm_weight_gradient(const RmsNormWeightGradientArgs& args) {
  if (args.x.elements() == 0) return;
  check(!args.rstd.empty(), "rms_norm: the gradient needs rstd");
  check_rows(args.x, args.rstd, args.dgamma);
  check_activations(args.x, args.x, "x");
  check_activations(args.dy, args.x, "dy");
  const std::int64_t rows = rms_norm::row_count(args.x);
  const Shape partials{(rows + kRmsNormRowBlock - 1) / kRmsNormRowBlock, rms_norm::row_width(args.x)};
  check(args.partials.empty() || (args.partials.shape == partials && args.partials.dtype == DType::f32 &&
                                  args.partials.contiguous() && partials[0] <= 65535),
        "rms_norm: partials is {} instead of f32 {}", args.partials, partials);
  choose("rms_norm_weight_gradient", kWeightGradient, args).run(args);
}

std::span<const Variant<RmsNormArgs>> rms_norm_forward_variants() { return kForward; }
std::span<const Variant<RmsNormInputGradientArgs>> rms_norm_input_gradient_variants() { return kInputGradient; }
std::span<const Variant<RmsNormWeightGradientArgs>> rms_norm_weight_gradient_variants() { return kWeightGradient; }

}  // namespace shoestring
