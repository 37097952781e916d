#include "kernels/permute.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "kernels/base/check.h"
#include "kernels/base/workers.h"
#include "kernels/cpu_refusals.h"
#include "kernels/element.h"

namespace shoestring {
namespace permute::reference {
namespace {

std::int64_t choices(const Permutation& plan, std::int64_t tokens) {
  return tokens == 0 ? 0 : plan.row_of_slot.shape[0] / tokens;
}

template <class T>
void gather_weighted(const GatherRowsArgs& args) {
  using Real = MathType<T>;
  const std::int64_t k = choices(args.plan, args.x.shape[0]);
  const std::int64_t hidden = args.x.shape[1];
  const auto* slot_of_row = args.plan.slot_of_row.as<std::int32_t>();
  args.stream.workers().split(args.xp.shape[0], row_grain(hidden), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) {
      const std::int64_t slot = slot_of_row[row];
      T* to = args.xp.as<T>() + row * args.xp.strides[0];
      if (slot < 0) {
        std::fill(to, to + hidden, T{});
        continue;
      }
      const Real w = args.weights.as<Real>()[slot];
      const T* from = args.x.as<T>() + slot / k * args.x.strides[0];
      for (std::int64_t j = 0; j < hidden; ++j) to[j] = T(w * static_cast<Real>(from[j]));
    }
  });
}

void gather(const GatherRowsArgs& args) {
  if (args.weights.empty()) return copy_rows(args);
  switch (args.x.dtype) {
    case DType::f64: return gather_weighted<double>(args);
    case DType::f32: return gather_weighted<float>(args);
    default: return gather_weighted<BFloat16>(args);
  }
}

template <class T>
void combine_of(const CombineRowsArgs& args) {
  using Real = MathType<T>;
  const std::int64_t tokens = args.y.shape[0];
  const std::int64_t hidden = args.y.shape[1];
  const std::int64_t k = choices(args.plan, tokens);
  const auto* row_of_slot = args.plan.row_of_slot.as<std::int32_t>();
  const Real* weights = args.weights.as<Real>();
  args.stream.workers().split(tokens, row_grain(hidden * (k + 1)), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t token = begin; token < end; ++token) {
      T* y = args.y.as<T>() + token * args.y.strides[0];
      for (std::int64_t j = 0; j < hidden; ++j) {
        Real sum = args.accumulate ? static_cast<Real>(y[j]) : Real{0};
        for (std::int64_t slot = token * k; slot < (token + 1) * k; ++slot) {
          if (row_of_slot[slot] < 0) continue;
          const auto term = static_cast<Real>(args.yp.as<T>()[row_of_slot[slot] * args.yp.strides[0] + j]);
          sum = weights == nullptr ? sum + term : std::fma(weights[slot], term, sum);
        }
        y[j] = T(sum);
      }
    }
  });
}

void combine(const CombineRowsArgs& args) {
  switch (args.y.dtype) {
    case DType::f64: return combine_of<double>(args);
    case DType::f32: return combine_of<float>(args);
    default: return combine_of<BFloat16>(args);
  }
}

template <class T>
void weight_gradient_of(const PermuteWeightGradientArgs& args) {
  using Real = MathType<T>;
  const std::int64_t slots = args.dweights.elements();
  const std::int64_t k = args.dweights.shape[1];
  const std::int64_t hidden = args.dy.shape[1];
  const auto* row_of_slot = args.plan.row_of_slot.as<std::int32_t>();
  args.stream.workers().split(slots, row_grain(hidden), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t slot = begin; slot < end; ++slot) {
      double sum = 0;
      if (row_of_slot[slot] >= 0) {
        const T* dy = args.dy.as<T>() + slot / k * args.dy.strides[0];
        const T* yp = args.yp.as<T>() + row_of_slot[slot] * args.yp.strides[0];
        for (std::int64_t j = 0; j < hidden; ++j) sum += widened(dy[j]) * widened(yp[j]);
      }
      args.dweights.as<Real>()[slot] = static_cast<Real>(sum);
    }
  });
}

void weight_gradient(const PermuteWeightGradientArgs& args) {
  switch (args.dy.dtype) {
    case DType::f64: return weight_gradient_of<double>(args);
    case DType::f32: return weight_gradient_of<float>(args);
    default: return weight_gradient_of<BFloat16>(args);
  }
}

}  // namespace
}  // namespace permute::reference

void permute::copy_rows(const GatherRowsArgs& args) {
  const std::int64_t k = reference::choices(args.plan, args.x.shape[0]);
  const std::int64_t hidden = args.x.shape[1];
  const std::int64_t size = size_bytes(args.x.dtype);
  const auto* slot_of_row = args.plan.slot_of_row.as<std::int32_t>();
  args.stream.workers().split(args.xp.shape[0], row_grain(hidden), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) {
      char* to = args.xp.as<char>() + row * args.xp.strides[0] * size;
      if (slot_of_row[row] < 0) {
        std::memset(to, 0, static_cast<std::size_t>(hidden * size));
        continue;
      }
      const char* from = args.x.as<char>() + slot_of_row[row] / k * args.x.strides[0] * size;
      std::memcpy(to, from, static_cast<std::size_t>(hidden * size));
    }
  });
}

namespace {

constexpr std::array kGather = std::to_array<Variant<GatherRowsArgs>>({
#if SHOESTRING_CUDA
  {"cuda", permute::cuda::refuses, permute::cuda::gather},
#endif
#if defined(__x86_64__)
#endif
      {"simd", permute::simd::refuses, permute::simd::gather},
      {"reference", needs_cpu<GatherRowsArgs>, permute::reference::gather},
});
constexpr std::array kCombine = std::to_array<Variant<CombineRowsArgs>>({
#if SHOESTRING_CUDA
  {"cuda", permute::cuda::refuses, permute::cuda::combine},
#endif
#if defined(__x86_64__)
#endif
      {"simd", permute::simd::refuses, permute::simd::combine},
      {"reference", needs_cpu<CombineRowsArgs>, permute::reference::combine},
});
constexpr std::array kWeightGradient = std::to_array<Variant<PermuteWeightGradientArgs>>({
#if SHOESTRING_CUDA
  {"cuda", permute::cuda::refuses, permute::cuda::weight_gradient},
#endif
      {"reference", needs_cpu<PermuteWeightGradientArgs>, permute::reference::weight_gradient},
});

bool is_activation(DType dtype) { return dtype == DType::f64 || dtype == DType::f32 || dtype == DType::bf16; }

void check_rows(ConstTensorView tokens, ConstTensorView rows, const Permutation& plan) {
  check(tokens.shape.rank() == 2 && rows.shape.rank() == 2 && tokens.shape[1] == rows.shape[1] &&
            tokens.dtype == rows.dtype && (tokens.shape[1] <= 1 || (tokens.strides[1] == 1 && rows.strides[1] == 1)),
        "permute: tokens are {}, rows {}", tokens, rows);
  const std::int64_t slots = plan.row_of_slot.shape[0];
  check(tokens.shape[0] == 0 ? slots == 0 : slots % tokens.shape[0] == 0, "permute: a plan of {} slots for tokens {}",
        slots, tokens);
  check(rows.shape[0] <= plan.slot_of_row.shape[0], "permute: {} rows by a plan of {}", rows.shape[0],
        plan.slot_of_row.shape[0]);
}

void check_weights(ConstTensorView weights, DType activation, const Permutation& plan) {
  if (weights.empty()) return;
  const DType expected = activation == DType::f64 ? DType::f64 : DType::f32;
  check(is_activation(activation), "permute: {} rows cannot be weighted", name(activation));
  check(weights.dtype == expected && weights.contiguous() && weights.elements() == plan.row_of_slot.shape[0],
        "permute: weights are {} for {} slots", weights, plan.row_of_slot.shape[0]);
}

void check_plan(const Permutation& plan, std::int64_t slots, std::int64_t multiple) {
  check(multiple >= 1, "permute: experts begin at multiples of {}", multiple);
  check(plan.counts.dtype == DType::i64 && plan.offsets.dtype == DType::i64 &&
            plan.offsets.shape == Shape{plan.counts.shape[0] + 1} && plan.row_of_slot.dtype == DType::i32 &&
            plan.slot_of_row.dtype == DType::i32 && plan.row_of_slot.shape == Shape{slots} &&
            plan.slot_of_row.shape == Shape{most_rows(slots, plan.counts.shape[0], multiple)},
        "permute: a plan of counts {}, offsets {}, {} and {} for {} slots, experts at multiples of {}", plan.counts,
        plan.offsets, plan.row_of_slot, plan.slot_of_row, slots, multiple);
}

// A counting sort, stable in slot order: rows of one expert keep their tokens' order. It costs a few nanoseconds a
// slot, beside rows of kilobytes; one thread does it.
void plan_on_cpu(const PlanPermutationArgs& args) {
  const Permutation& plan = args.plan;
  const std::int64_t slots = args.indices.elements();
  const std::int64_t experts = plan.counts.shape[0];
  const auto* expert_of = args.indices.as<std::int32_t>();
  auto* counts = plan.counts.as<std::int64_t>();
  auto* offsets = plan.offsets.as<std::int64_t>();
  auto* row_of_slot = plan.row_of_slot.as<std::int32_t>();
  auto* slot_of_row = plan.slot_of_row.as<std::int32_t>();
  const auto here = [&](std::int64_t slot) { return expert_of[slot] >= 0 && expert_of[slot] < experts; };
  std::fill(counts, counts + experts, 0);
  for (std::int64_t slot = 0; slot < slots; ++slot) {
    if (here(slot)) ++counts[expert_of[slot]];
  }
  offsets[0] = 0;
  for (std::int64_t expert = 0; expert < experts; ++expert) {
    offsets[expert + 1] = offsets[expert] + (counts[expert] + args.multiple - 1) / args.multiple * args.multiple;
  }
  std::fill(counts, counts + experts, 0);  // now: rows handed out so far; at the end the counts again
  std::fill(slot_of_row, slot_of_row + plan.slot_of_row.elements(), -1);
  for (std::int64_t slot = 0; slot < slots; ++slot) {
    row_of_slot[slot] = -1;
    if (!here(slot)) continue;
    const std::int64_t row = offsets[expert_of[slot]] + counts[expert_of[slot]]++;
    row_of_slot[slot] = static_cast<std::int32_t>(row);
    slot_of_row[row] = static_cast<std::int32_t>(slot);
  }
}

constexpr std::array kPlan = std::to_array<Variant<PlanPermutationArgs>>({
#if SHOESTRING_CUDA
  {"cuda", permute::cuda::refuses, permute::cuda::plan},
#endif
      {"cpu", needs_cpu<PlanPermutationArgs>, plan_on_cpu},
});

template <class Real>
void move_weights(TensorView to, ConstTensorView from, const Permutation& plan, bool to_rows) {
  const auto* source = (to_rows ? plan.slot_of_row : plan.row_of_slot).as<std::int32_t>();
  for (std::int64_t i = 0; i < to.elements(); ++i)
    to.as<Real>()[i] = source[i] < 0 ? Real{0} : from.as<Real>()[source[i]];
}

/// Numbers by slot as rows of one element, of a plan with one choice.
template <class View>
View column_of(View numbers) {
  return numbers.reshaped({numbers.elements(), 1});
}

void move_weights(TensorView to, ConstTensorView from, const Permutation& plan, bool to_rows, Stream& stream) {
  const ConstTensorView slots = to_rows ? from : ConstTensorView(to);
  check(to.dtype == from.dtype && (to.dtype == DType::f32 || to.dtype == DType::f64) && to.contiguous() &&
            from.contiguous() && slots.elements() == plan.row_of_slot.shape[0],
        "permute: weights {} to {} over {} slots", from, to, plan.row_of_slot.shape[0]);
  if (!stream.device().readable()) {
    if (to_rows) return gather_rows({.xp = column_of(to), .x = column_of(from), .plan = plan, .stream = stream});
    return combine_rows({.y = column_of(to), .yp = column_of(from), .plan = plan, .stream = stream});
  }
  to.dtype == DType::f64 ? move_weights<double>(to, from, plan, to_rows) : move_weights<float>(to, from, plan, to_rows);
}

}  // namespace

PermutationStorage::PermutationStorage(std::int64_t tokens, std::int64_t k, std::int64_t experts, Device device,
                                       std::int64_t multiple)
    : counts_(DType::i64, {experts}, device),
      offsets_(DType::i64, {experts + 1}, device),
      row_of_slot_(DType::i32, {tokens * k}, device),
      slot_of_row_(DType::i32, {most_rows(tokens * k, experts, multiple)}, device) {}

void plan_permutation(const Permutation& plan, ConstTensorView indices, Stream& stream, std::int64_t multiple) {
  check(indices.dtype == DType::i32 && indices.contiguous(), "permute: indices are {}", indices);
  check_plan(plan, indices.elements(), multiple);
  const PlanPermutationArgs args{plan, indices, stream, multiple};
  choose("plan_permutation", kPlan, args).run(args);
}

void gather_rows(const GatherRowsArgs& args) {
  check_rows(args.x, args.xp, args.plan);
  check_weights(args.weights, args.x.dtype, args.plan);
  if (args.xp.elements() == 0) return;
  choose("gather_rows", kGather, args).run(args);
}

void combine_rows(const CombineRowsArgs& args) {
  check_rows(args.y, args.yp, args.plan);
  check(is_activation(args.y.dtype), "permute: y is {}", args.y);
  check_weights(args.weights, args.y.dtype, args.plan);
  if (args.y.elements() == 0) return;
  choose("combine_rows", kCombine, args).run(args);
}

void permute_weight_gradient(const PermuteWeightGradientArgs& args) {
  check_rows(args.dy, args.yp, args.plan);
  check(is_activation(args.dy.dtype), "permute: dy is {}", args.dy);
  if (args.dweights.elements() == 0) return;
  check(args.dweights.shape.rank() == 2, "permute: dweights are {}", args.dweights);
  check_weights(args.dweights, args.dy.dtype, args.plan);
  choose("permute_weight_gradient", kWeightGradient, args).run(args);
}

void weights_to_rows(TensorView row_weights, ConstTensorView weights, const Permutation& plan, Stream& stream) {
  move_weights(row_weights, weights, plan, true, stream);
}
void weights_to_slots(TensorView weights, ConstTensorView row_weights, const Permutation& plan, Stream& stream) {
  move_weights(weights, row_weights, plan, false, stream);
}

std::span<const Variant<PlanPermutationArgs>> plan_permutation_variants() { return kPlan; }
std::span<const Variant<GatherRowsArgs>> gather_rows_variants() { return kGather; }
std::span<const Variant<CombineRowsArgs>> combine_rows_variants() { return kCombine; }
std::span<const Variant<PermuteWeightGradientArgs>> permute_weight_gradient_variants() { return kWeightGradient; }

}  // namespace shoestring
