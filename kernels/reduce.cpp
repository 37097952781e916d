#include "kernels/reduce.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "kernels/base/check.h"
#include "kernels/base/copy.h"
#include "kernels/base/workers.h"
#include "kernels/cpu_refusals.h"
#include "kernels/element.h"
#include "kernels/fill.h"

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

template <class Out, class X, class Y>
void axpby_of(const AxpbyArgs& args) {
  using Real = MathType<Out>;
  const auto a = static_cast<Real>(args.a);
  const auto b = static_cast<Real>(args.b);
  Out* out = args.out.as<Out>();
  const X* x = args.x.as<X>();
  const Y* y = args.y.as<Y>();
  args.stream.workers().split(args.out.elements(), kAxpbyGrain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const auto value = static_cast<Real>(x[i]);
      out[i] = Out(y == nullptr ? a * value : std::fma(a, value, b * static_cast<Real>(y[i])));
    }
  });
}

template <class Out>
void axpby_into(const AxpbyArgs& args) {
  const bool narrow_y = args.y.dtype == DType::bf16;
  if (args.x.dtype == DType::bf16) {
    narrow_y ? axpby_of<Out, BFloat16, BFloat16>(args) : axpby_of<Out, BFloat16, float>(args);
  } else {
    narrow_y ? axpby_of<Out, float, BFloat16>(args) : axpby_of<Out, float, float>(args);
  }
}

}  // namespace

void run(const ReduceArgs& args) { over_blocks(args, block_value); }
void run(const AxpbyArgs& args) {
  switch (args.out.dtype) {
    case DType::f64: return axpby_of<double, double, double>(args);
    case DType::f32: return axpby_into<float>(args);
    default: return axpby_into<BFloat16>(args);
  }
}

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
  *args.result.as<double>() = combine(args.kind, std::span(values).first(static_cast<std::size_t>(blocks)));
}

}  // namespace reduce

namespace {

constexpr std::array kReduce = std::to_array<Variant<ReduceArgs>>({
#if SHOESTRING_CUDA
  {"cuda", reduce::cuda::refuses, reduce::cuda::run},
#endif
#if defined(__x86_64__)
#endif
      {"simd", reduce::simd::refuses, reduce::simd::run}, {"reference", needs_cpu<ReduceArgs>, reduce::reference::run},
});
constexpr std::array kAxpby = std::to_array<Variant<AxpbyArgs>>({
#if SHOESTRING_CUDA
  {"cuda", reduce::cuda::refuses, reduce::cuda::run},
#endif
#if defined(__x86_64__)
#endif
      {"simd", reduce::simd::refuses, reduce::simd::run}, {"reference", needs_cpu<AxpbyArgs>, reduce::reference::run},
});

void check_span(ConstTensorView x) {
  check(x.dtype == DType::f64 || x.dtype == DType::f32 || x.dtype == DType::bf16, "reduce: {} is no float", x);
  check(x.contiguous(), "reduce: {} is not dense", x);
}

void run_axpby(const AxpbyArgs& args) {
  const auto fits = [&](ConstTensorView x) {
    check_span(x);
    return x.elements() == args.out.elements() && (x.dtype == DType::f64) == (args.out.dtype == DType::f64);
  };
  const bool one = args.y.data == nullptr;
  check(fits(args.out) && fits(args.x) && (one || fits(args.y)), "axpby: out is {}, x is {}, y is {}", args.out, args.x,
        args.y);
  if (args.out.elements() == 0) return;
  choose("axpby", kAxpby, args).run(args);
}

}  // namespace

void reduce_into(TensorView result, TensorView partials, ReduceKind kind, ConstTensorView x, Stream& stream) {
  check_span(x);
  check(result.dtype == DType::f64 && result.elements() == 1, "reduce: the result is {}", result);
  if (x.elements() == 0) return fill(result, 0.0, stream);
  const ReduceArgs args{.result = result, .partials = partials, .x = x, .kind = kind, .stream = stream};
  choose("reduce", kReduce, args).run(args);
}

namespace {

double reduced(ReduceKind kind, ConstTensorView x, Stream& stream) {
  double result = 0;
  const TensorView here = view_of(&result, DType::f64, {1});
  if (stream.device().kind == DeviceKind::cpu) {
    reduce_into(here, {}, kind, x, stream);
    return result;
  }
  Tensor room(DType::f64, {1 + reduce::kMaxBlocks}, stream.device());
  const TensorView there = room.view().slice(0, 0, 1);
  reduce_into(there, room.view().slice(0, 1, reduce::kMaxBlocks), kind, x, stream);
  copy(here, there, stream);
  stream.synchronize();
  return result;
}

}  // namespace

double sum(ConstTensorView x, Stream& stream) { return reduced(ReduceKind::sum, x, stream); }
double sum_of_squares(ConstTensorView x, Stream& stream) { return reduced(ReduceKind::sum_of_squares, x, stream); }
double max_abs(ConstTensorView x, Stream& stream) { return reduced(ReduceKind::max_abs, x, stream); }
bool all_finite(ConstTensorView x, Stream& stream) { return std::isfinite(max_abs(x, stream)); }

void axpby(TensorView out, double a, ConstTensorView x, double b, ConstTensorView y, Stream& stream) {
  run_axpby({.out = out, .a = a, .x = x, .b = b, .y = y, .stream = stream});
}

void axpy(TensorView y, double a, ConstTensorView x, Stream& stream) { axpby(y, a, x, 1, y, stream); }

void scale(TensorView out, double a, ConstTensorView x, Stream& stream) {
  run_axpby({.out = out, .a = a, .x = x, .stream = stream});
}

void convert(TensorView out, ConstTensorView x, Stream& stream) { scale(out, 1, x, stream); }

void normalise(TensorView out, ConstTensorView x, ConstTensorView squares, double eps, Stream& stream) {
  check(squares.dtype == DType::f64 && squares.elements() == 1, "normalise: the squares are {}", squares);
  if (stream.device().readable()) {
    return scale(out, 1 / (std::sqrt(*squares.as<double>()) + eps), x, stream);
  }
  run_axpby({.out = out, .a = 1, .x = x, .squares = squares, .eps = eps, .stream = stream});
}

std::span<const Variant<ReduceArgs>> reduce_variants() { return kReduce; }
std::span<const Variant<AxpbyArgs>> axpby_variants() { return kAxpby; }

}  // namespace shoestring
