#include "kernels/reduce.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "kernels/base/check.h"
#include "kernels/base/workers.h"
#include "kernels/cpu_refusals.h"
#include "kernels/element.h"

namespace shoestring {
namespace reduce {

double pairwise_sum(std::span<double> terms) {
  std::size_t count = terms.size();
  if (count == 0) return 0;
  while (count > 1) {
    for (std::size_t i = 0; i < count / 2; ++i) terms[i] = terms[2 * i] + terms[2 * i + 1];
    if (count % 2 == 1) terms[count / 2] = terms[count - 1];
    count = (count + 1) / 2;
  }
  return terms[0];
}

namespace {

double combine(ReduceKind kind, std::span<double> blocks) {
  if (kind != ReduceKind::max_abs) return pairwise_sum(blocks);
  double most = 0;
  for (const double block : blocks) {
    if (std::isnan(block)) return block;
    most = std::max(most, block);
  }
  return most;
}

}  // namespace

namespace reference {
namespace {

template <class T>
double block_of(ReduceKind kind, const T* x, std::int64_t count) {
  if (kind == ReduceKind::max_abs) {
    double most = 0;
    for (std::int64_t i = 0; i < count; ++i) {
      const double magnitude = std::abs(widened(x[i]));
      if (std::isnan(magnitude)) return magnitude;
      most = std::max(most, magnitude);
    }
    return most;
  }
  std::array<double, kSums> lanes{};
  for (std::int64_t i = 0; i < count; ++i) {
    const double value = widened(x[i]);
    double& lane = lanes[static_cast<std::size_t>(i % kSums)];
    lane = kind == ReduceKind::sum ? lane + value : std::fma(value, value, lane);
  }
  return pairwise_sum(lanes);
}

double block_value(const ReduceArgs& args, std::int64_t begin, std::int64_t count) {
  switch (args.x.dtype) {
    case DType::f64: return block_of(args.kind, args.x.as<double>() + begin, count);
    case DType::f32: return block_of(args.kind, args.x.as<float>() + begin, count);
    default: return block_of(args.kind, args.x.as<BFloat16>() + begin, count);
  }
}

template <class Y, class X>
void axpy_of(const AxpyArgs& args) {
  using Real = MathType<Y>;
  const auto a = static_cast<Real>(args.a);
  Y* y = args.y.as<Y>();
  const X* x = args.x.as<X>();
  args.stream.workers().split(args.y.elements(), 16384, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      if (args.overwrite) {
        y[i] = Y(a * static_cast<Real>(x[i]));
        continue;
      }
      const auto old = static_cast<Real>(y[i]);
      y[i] = Y(x == nullptr ? a * old : std::fma(a, static_cast<Real>(x[i]), old));
    }
  });
}

void axpy(const AxpyArgs& args) {
  const bool narrow_x = args.x.dtype == DType::bf16;
  switch (args.y.dtype) {
    case DType::f64: return axpy_of<double, double>(args);
    case DType::f32: return narrow_x ? axpy_of<float, BFloat16>(args) : axpy_of<float, float>(args);
    default: return narrow_x ? axpy_of<BFloat16, BFloat16>(args) : axpy_of<BFloat16, float>(args);
  }
}

}  // namespace

void run(const ReduceArgs& args) { over_blocks(args, block_value); }
void run(const AxpyArgs& args) { axpy(args); }

}  // namespace reference

void over_blocks(const ReduceArgs& args, double (*block_value)(const ReduceArgs&, std::int64_t, std::int64_t)) {
  const std::int64_t count = args.x.elements();
  const std::int64_t block = std::max<std::int64_t>(1, block_elements(count));
  const std::int64_t blocks = (count + block - 1) / block;
  std::array<double, kMaxBlocks> values;
  const std::int64_t grain = std::max<std::int64_t>(1, 16384 / block);
  args.stream.workers().split(blocks, grain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t b = begin; b < end; ++b) {
      values[static_cast<std::size_t>(b)] = block_value(args, b * block, std::min(block, count - b * block));
    }
  });
  *args.result = combine(args.kind, std::span(values).first(static_cast<std::size_t>(blocks)));
}

}  // namespace reduce

namespace {

constexpr std::array kReduce = std::to_array<Variant<ReduceArgs>>({
    {"avx512", reduce::avx512::refuses, reduce::avx512::run},
    {"reference", needs_cpu<ReduceArgs>, reduce::reference::run},
});
constexpr std::array kAxpy = std::to_array<Variant<AxpyArgs>>({
    {"avx512", reduce::avx512::refuses, reduce::avx512::run},
    {"reference", needs_cpu<AxpyArgs>, reduce::reference::run},
});

void check_span(ConstTensorView x) {
  check(x.dtype == DType::f64 || x.dtype == DType::f32 || x.dtype == DType::bf16, "reduce: {} is no float",
        x.to_string());
  check(x.contiguous(), "reduce: {} is not dense", x.to_string());
}

double reduced(ReduceKind kind, ConstTensorView x, Stream& stream) {
  check_span(x);
  if (x.elements() == 0) return 0;
  double result = 0;
  const ReduceArgs args{.result = &result, .x = x, .kind = kind, .stream = stream};
  choose("reduce", kReduce, args).run(args);
  return result;
}

void run_axpy(const AxpyArgs& args) {
  check_span(args.y);
  check_span(args.x);
  check(args.y.elements() == args.x.elements() && (args.y.dtype == DType::f64) == (args.x.dtype == DType::f64),
        "axpy: y is {}, x is {}", args.y.to_string(), args.x.to_string());
  if (args.y.elements() == 0) return;
  choose("axpy", kAxpy, args).run(args);
}

}  // namespace

double sum(ConstTensorView x, Stream& stream) { return reduced(ReduceKind::sum, x, stream); }
double sum_of_squares(ConstTensorView x, Stream& stream) { return reduced(ReduceKind::sum_of_squares, x, stream); }
double max_abs(ConstTensorView x, Stream& stream) { return reduced(ReduceKind::max_abs, x, stream); }
bool all_finite(ConstTensorView x, Stream& stream) { return std::isfinite(max_abs(x, stream)); }

void scale(TensorView x, double a, Stream& stream) {
  check_span(x);
  if (x.elements() == 0) return;
  const AxpyArgs args{.y = x, .a = a, .stream = stream};
  choose("axpy", kAxpy, args).run(args);
}

void axpy(TensorView y, double a, ConstTensorView x, Stream& stream) {
  run_axpy({.y = y, .a = a, .x = x, .stream = stream});
}

void convert(TensorView y, ConstTensorView x, Stream& stream) {
  run_axpy({.y = y, .a = 1, .x = x, .overwrite = true, .stream = stream});
}

std::span<const Variant<ReduceArgs>> reduce_variants() { return kReduce; }
std::span<const Variant<AxpyArgs>> axpy_variants() { return kAxpy; }

}  // namespace shoestring
