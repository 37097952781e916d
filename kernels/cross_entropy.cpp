#include "kernels/cross_entropy.h"

#include <array>
#include <cmath>
#include <limits>

#include "kernels/base/check.h"
#include "kernels/base/workers.h"
#include "kernels/cpu_refusals.h"
#include "kernels/fill.h"

namespace shoestring {
namespace {

void check_logits(std::string_view op, const ConstTensorView& logits, const ConstTensorView& targets) {
  check(logits.shape.rank() == 2 && logits.strides[1] == 1, "{}: logits must be rows with contiguous columns, not {}",
        op, logits);
  check(logits.dtype == DType::f64 || logits.dtype == DType::f32 || logits.dtype == DType::bf16,
        "{}: logits cannot be {}", op, name(logits.dtype));
  check(targets.dtype == DType::i32 && targets.shape == Shape{logits.shape[0]} && targets.contiguous(),
        "{}: targets must be i32 [{}], not {}", op, logits.shape[0], targets);
}

void check_statistic(std::string_view op, std::string_view what, const ConstTensorView& view, DType logits,
                     std::int64_t rows) {
  const DType wanted = logits == DType::f64 ? DType::f64 : DType::f32;
  check(view.dtype == wanted && view.shape == Shape{rows} && view.contiguous(), "{}: {} must be {} [{}], not {}", op,
        what, name(wanted), rows, view);
}

void check_gradient(std::string_view op, const ConstTensorView& dlogits, const ConstTensorView& logits) {
  check(dlogits.shape == logits.shape && dlogits.strides[1] == 1,
        "{}: dlogits must be {} with contiguous columns, not {}", op, logits.shape, dlogits);
  check(dlogits.dtype == logits.dtype || (dlogits.dtype == DType::bf16 && logits.dtype == DType::f32),
        "{}: dlogits of {} for logits of {}", op, name(dlogits.dtype), name(logits.dtype));
  // A row is written from its front, never ahead of what is still to be read.
  check(dlogits.data != logits.data ||
            dlogits.strides[0] * size_bytes(dlogits.dtype) == logits.strides[0] * size_bytes(logits.dtype),
        "{}: dlogits in the logits' memory must have its rows where the logits have theirs", op);
}

/// What a call adds up in, and by which weights.
template <class Args>
void check_totals(std::string_view op, const Args& args) {
  const auto one = [&](std::string_view what, const ConstTensorView& view, DType dtype) {
    check(view.empty() || (view.dtype == dtype && view.elements() == 1), "{}: {} must be {} [1]", op, what,
          name(dtype));
  };
  one("loss_sum", args.loss_sum, DType::f64);
  one("weight_sum", args.weight_sum, DType::f64);
  one("count", args.count, DType::i64);
}

void check_weights(std::string_view op, const ConstTensorView& weights, std::int64_t rows) {
  check(weights.empty() || (weights.dtype == DType::f32 && weights.shape == Shape{rows} && weights.contiguous()),
        "{}: weights must be f32 [{}], not {}", op, rows, weights);
}

void check_targets(const ConstTensorView& targets, std::int64_t vocabulary) {
  if (!targets.device.readable()) return;
  const auto* target = targets.as<std::int32_t>();
  for (std::int64_t row = 0; row < targets.shape[0]; ++row) {
    if (target[row] < -1 || target[row] >= vocabulary) {
      fail(ExitCode::bad_data,
           "cross_entropy: row {} has target {}, but the vocabulary has {}: take data of the model's own tokenizer",
           row, target[row], vocabulary);
    }
  }
}

/// Adds the trained rows in row order: the same double whatever the number of workers or the variant's blocks.
template <class Stat, class Args>
void add_rows(const Args& args) {
  double sum = 0;
  double weights = 0;
  std::int64_t trained = 0;
  for (std::int64_t row = 0; row < args.targets.shape[0]; ++row) {
    if (args.targets.template as<std::int32_t>()[row] < 0) continue;
    const double weight = token_loss::weight_of(args.weights, row);
    sum += weight * static_cast<double>(args.loss.template as<Stat>()[row]);
    weights += weight;
    ++trained;
  }
  if (!args.loss_sum.empty()) *args.loss_sum.template as<double>() += sum;
  if (!args.weight_sum.empty()) *args.weight_sum.template as<double>() += weights;
  if (!args.count.empty()) *args.count.template as<std::int64_t>() += trained;
}

template <class Args>
void add_totals(const Args& args) {
  if (!args.loss.device.readable()) return;  // the device's row has added them
  args.loss.dtype == DType::f64 ? add_rows<double>(args) : add_rows<float>(args);
}

}  // namespace

namespace token_loss::reference {
namespace {

// All sums in double, whatever the logits' format.
template <class T>
double log_sum_exp(const T* logits, std::int64_t columns) {
  double highest = -std::numeric_limits<double>::infinity();
  for (std::int64_t j = 0; j < columns; ++j) highest = std::fmax(highest, static_cast<double>(logits[j]));
  double sum = 0;
  for (std::int64_t j = 0; j < columns; ++j) sum += std::exp(static_cast<double>(logits[j]) - highest);
  return highest + std::log(sum);
}

template <class T>
T rounded(double value) {
  if constexpr (std::is_same_v<T, double>) {
    return value;
  } else {
    return T(static_cast<float>(value));
  }
}

/// dlogits of one row; `target` counts from the row's first column and may lie outside.
template <class T, class D>
void row_gradient(D* dlogits, const T* logits, std::int64_t columns, double lse, std::int64_t target, double scale) {
  for (std::int64_t j = 0; j < columns; ++j) {
    const double probability = std::exp(static_cast<double>(logits[j]) - lse);
    dlogits[j] = rounded<D>(scale * (probability - (j == target ? 1.0 : 0.0)));
  }
}

template <class T, class D, class Stat>
void loss_rows(const CrossEntropyArgs& args) {
  const std::int64_t columns = args.logits.shape[1];
  args.stream.workers().split(args.logits.shape[0], 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) {
      const T* logits = args.logits.as<T>() + row * args.logits.strides[0];
      const std::int32_t target = args.targets.as<std::int32_t>()[row];
      const double lse = log_sum_exp(logits, columns);
      if (!args.lse.empty()) args.lse.as<Stat>()[row] = static_cast<Stat>(lse);
      args.loss.as<Stat>()[row] = target < 0 ? Stat{0} : static_cast<Stat>(lse - static_cast<double>(logits[target]));
      if (args.dlogits.empty()) continue;
      D* dlogits = args.dlogits.as<D>() + row * args.dlogits.strides[0];
      if (target < 0) {
        for (std::int64_t j = 0; j < columns; ++j) dlogits[j] = D{};
      } else {
        row_gradient(dlogits, logits, columns, lse, target, args.scale * weight_of(args.weights, row));
      }
    }
  });
}

template <class T, class Stat>
void fold_chunk(const CrossEntropyChunkArgs& args) {
  const std::int64_t columns = args.logits.shape[1];
  args.stream.workers().split(args.logits.shape[0], 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) {
      const T* logits = args.logits.as<T>() + row * args.logits.strides[0];
      const double before = static_cast<double>(args.running_max.as<Stat>()[row]);
      double highest = before;
      for (std::int64_t j = 0; j < columns; ++j) highest = std::fmax(highest, static_cast<double>(logits[j]));
      double sum = 0;
      for (std::int64_t j = 0; j < columns; ++j) sum += std::exp(static_cast<double>(logits[j]) - highest);
      const double earlier = static_cast<double>(args.running_sum.as<Stat>()[row]);
      if (earlier > 0) sum += earlier * std::exp(before - highest);
      args.running_max.as<Stat>()[row] = static_cast<Stat>(highest);
      args.running_sum.as<Stat>()[row] = static_cast<Stat>(sum);
      const std::int64_t target = args.targets.as<std::int32_t>()[row] - args.first_id;
      if (target >= 0 && target < columns) {
        args.target_logit.as<Stat>()[row] = static_cast<Stat>(static_cast<double>(logits[target]));
      }
    }
  });
}

template <class T, class D, class Stat>
void gradient_chunk(const CrossEntropyChunkGradientArgs& args) {
  const std::int64_t columns = args.logits.shape[1];
  args.stream.workers().split(args.logits.shape[0], 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) {
      const T* logits = args.logits.as<T>() + row * args.logits.strides[0];
      D* dlogits = args.dlogits.as<D>() + row * args.dlogits.strides[0];
      const std::int32_t target = args.targets.as<std::int32_t>()[row];
      if (target < 0) {
        for (std::int64_t j = 0; j < columns; ++j) dlogits[j] = D{};
      } else {
        const double lse = static_cast<double>(args.lse.as<Stat>()[row]);
        row_gradient(dlogits, logits, columns, lse, target - args.first_id, args.scale * weight_of(args.weights, row));
      }
    }
  });
}

}  // namespace

void rows(const CrossEntropyArgs& args) {
  if (args.logits.dtype == DType::f64) return loss_rows<double, double, double>(args);
  if (args.logits.dtype == DType::bf16) return loss_rows<BFloat16, BFloat16, float>(args);
  if (!args.dlogits.empty() && args.dlogits.dtype == DType::bf16) return loss_rows<float, BFloat16, float>(args);
  loss_rows<float, float, float>(args);
}

void chunk(const CrossEntropyChunkArgs& args) {
  switch (args.logits.dtype) {
    case DType::f64: return fold_chunk<double, double>(args);
    case DType::f32: return fold_chunk<float, float>(args);
    default: return fold_chunk<BFloat16, float>(args);
  }
}

void chunk_gradient(const CrossEntropyChunkGradientArgs& args) {
  if (args.logits.dtype == DType::f64) return gradient_chunk<double, double, double>(args);
  if (args.logits.dtype == DType::bf16) return gradient_chunk<BFloat16, BFloat16, float>(args);
  if (args.dlogits.dtype == DType::bf16) return gradient_chunk<float, BFloat16, float>(args);
  gradient_chunk<float, float, float>(args);
}

}  // namespace token_loss::reference

std::span<const Variant<CrossEntropyArgs>> cross_entropy_variants() {
  static constexpr std::array kVariants = std::to_array<Variant<CrossEntropyArgs>>({
#if SHOESTRING_CUDA
    {"cuda", token_loss::cuda::refuses, token_loss::cuda::rows},
#endif
#if defined(__x86_64__)
#endif
        {"simd", token_loss::simd::refuses, token_loss::simd::rows},
        {"reference", needs_cpu<CrossEntropyArgs>, token_loss::reference::rows},
  });
  return kVariants;
}

std::span<const Variant<CrossEntropyChunkArgs>> cross_entropy_chunk_variants() {
  static constexpr std::array kVariants = std::to_array<Variant<CrossEntropyChunkArgs>>({
#if SHOESTRING_CUDA
    {"cuda", token_loss::cuda::refuses, token_loss::cuda::chunk},
#endif
#if defined(__x86_64__)
#endif
        {"simd", token_loss::simd::refuses, token_loss::simd::chunk},
        {"reference", needs_cpu<CrossEntropyChunkArgs>, token_loss::reference::chunk},
  });
  return kVariants;
}

std::span<const Variant<CrossEntropyChunkGradientArgs>> cross_entropy_chunk_gradient_variants() {
  static constexpr std::array kVariants = std::to_array<Variant<CrossEntropyChunkGradientArgs>>({
#if SHOESTRING_CUDA
    {"cuda", token_loss::cuda::refuses, token_loss::cuda::chunk_gradient},
#endif
#if defined(__x86_64__)
#endif
        {"simd", token_loss::simd::refuses, token_loss::simd::chunk_gradient},
        {"reference", needs_cpu<CrossEntropyChunkGradientArgs>, token_loss::reference::chunk_gradient},
  });
  return kVariants;
}

void cross_entropy(const CrossEntropyArgs& args) {
  constexpr std::string_view kOp = "cross_entropy";
  check_logits(kOp, args.logits, args.targets);
  const std::int64_t rows = args.logits.shape[0];
  check(args.logits.shape[1] > 0 || rows == 0, "{}: an empty vocabulary", kOp);
  check_statistic(kOp, "loss", args.loss, args.logits.dtype, rows);
  if (!args.lse.empty()) check_statistic(kOp, "lse", args.lse, args.logits.dtype, rows);
  if (!args.dlogits.empty()) check_gradient(kOp, args.dlogits, args.logits);
  check_totals(kOp, args);
  check_weights(kOp, args.weights, rows);
  check_targets(args.targets, args.logits.shape[1]);
  if (rows == 0) return;
  choose(kOp, cross_entropy_variants(), args).run(args);
  add_totals(args);
}

void cross_entropy_begin(const TensorView& running_max, const TensorView& running_sum, const TensorView& target_logit,
                         Stream& stream) {
  check(running_max.dtype == DType::f64 || running_max.dtype == DType::f32,
        "cross_entropy_begin: statistics are f32 or f64");
  for (const TensorView& view : {running_sum, target_logit}) {
    check(view.dtype == running_max.dtype && view.shape == running_max.shape, "cross_entropy_begin: {} beside {}", view,
          running_max);
  }
  fill(running_max, -std::numeric_limits<double>::infinity(), stream);
  fill(running_sum, 0.0, stream);
  fill(target_logit, 0.0, stream);
}

void cross_entropy_chunk(const CrossEntropyChunkArgs& args) {
  constexpr std::string_view kOp = "cross_entropy_chunk";
  check_logits(kOp, args.logits, args.targets);
  for (const TensorView& view : {args.running_max, args.running_sum, args.target_logit}) {
    check_statistic(kOp, "a running value", view, args.logits.dtype, args.logits.shape[0]);
  }
  if (args.logits.elements() == 0) return;
  choose(kOp, cross_entropy_chunk_variants(), args).run(args);
}

void cross_entropy_chunk_gradient(const CrossEntropyChunkGradientArgs& args) {
  constexpr std::string_view kOp = "cross_entropy_chunk_gradient";
  check_logits(kOp, args.logits, args.targets);
  check_statistic(kOp, "lse", args.lse, args.logits.dtype, args.logits.shape[0]);
  check_gradient(kOp, args.dlogits, args.logits);
  check_weights(kOp, args.weights, args.logits.shape[0]);
  if (args.logits.elements() == 0) return;
  choose(kOp, cross_entropy_chunk_gradient_variants(), args).run(args);
}

namespace {

template <class Stat>
void finish_rows(const CrossEntropyFinishArgs& args) {
  for (std::int64_t row = 0; row < args.targets.shape[0]; ++row) {
    const double lse = static_cast<double>(args.running_max.as<Stat>()[row]) +
                       std::log(static_cast<double>(args.running_sum.as<Stat>()[row]));
    const bool trained = args.targets.as<std::int32_t>()[row] >= 0;
    const double loss = trained ? lse - static_cast<double>(args.target_logit.as<Stat>()[row]) : 0.0;
    args.lse.as<Stat>()[row] = static_cast<Stat>(lse);
    args.loss.as<Stat>()[row] = static_cast<Stat>(loss);
  }
}

void finish_on_cpu(const CrossEntropyFinishArgs& args) {
  args.running_max.dtype == DType::f64 ? finish_rows<double>(args) : finish_rows<float>(args);
}

}  // namespace

std::span<const Variant<CrossEntropyFinishArgs>> cross_entropy_finish_variants() {
  static constexpr std::array kVariants = std::to_array<Variant<CrossEntropyFinishArgs>>({
#if SHOESTRING_CUDA
    {"cuda", token_loss::cuda::refuses, token_loss::cuda::finish},
#endif
        {"cpu", needs_cpu<CrossEntropyFinishArgs>, finish_on_cpu},
  });
  return kVariants;
}

void cross_entropy_finish(const CrossEntropyFinishArgs& args) {
  constexpr std::string_view kOp = "cross_entropy_finish";
  const std::int64_t rows = args.targets.shape[0];
  const DType stat = args.running_max.dtype;
  for (const ConstTensorView& view : std::initializer_list<ConstTensorView>{args.lse, args.loss, args.running_max,
                                                                            args.running_sum, args.target_logit}) {
    check_statistic(kOp, "a statistic", view, stat, rows);
  }
  check(args.targets.dtype == DType::i32 && args.targets.contiguous(), "{}: targets must be i32", kOp);
  check_totals(kOp, args);
  check_weights(kOp, args.weights, rows);
  check_targets(args.targets, args.vocabulary);
  if (rows == 0) return;
  choose(kOp, cross_entropy_finish_variants(), args).run(args);
  add_totals(args);
}

}  // namespace shoestring
