// Cross-entropy in vectors: a row is read for its maximum, for its sum and for its gradient. Compiled once for each
// instruction set.
#include <cmath>
#include <limits>

#include "kernels/base/workers.h"
#include "kernels/cpu_refusals.h"
#include "kernels/cross_entropy.h"

#include "kernels/simd_target.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cross_entropy_simd.cpp"
#include <hwy/foreach_target.h>

#include "kernels/exp_simd.h"
#include "kernels/lanes_simd.h"

HWY_BEFORE_NAMESPACE();
namespace shoestring::token_loss::HWY_NAMESPACE {
namespace {

namespace lanes = shoestring::HWY_NAMESPACE::lanes;
using namespace lanes;

template <class T>
float highest_of(const T* logits, std::int64_t columns) {
  const Floats lowest = broadcast(-std::numeric_limits<float>::infinity());
  Floats a = lowest, b = lowest;
  std::int64_t j = 0;
  for (; j + 2 * kLanes <= columns; j += 2 * kLanes) {
    a = greater(a, load(logits + j));
    b = greater(b, load(logits + j + kLanes));
  }
  for (; j < columns; j += kLanes) {
    const First inside = first(columns - j);
    a = greater(a, select(mask_of(inside), load(logits + j, inside), lowest));
  }
  return largest(greater(a, b));
}

/// sum_j exp(logits[j] - highest): lane j % 16 adds its elements in order.
template <class T>
float sum_of_exp(const T* logits, std::int64_t columns, float highest) {
  const Floats shift = broadcast(highest);
  Floats total = zeros();
  std::int64_t j = 0;
  for (; j + kLanes <= columns; j += kLanes) total = total + lanes::exp(load(logits + j) - shift);
  if (j < columns) {
    const First inside = first(columns - j);
    total = total + keep(mask_of(inside), lanes::exp(load(logits + j, inside) - shift));
  }
  return sum(total);
}

/// Not std::exp, whose bits are the C library's.
float exp_of(float x) {
  alignas(64) float room[kLanes];
  store(room, lanes::exp(broadcast(x)));
  return room[0];
}

template <class D>
void zero_row(D* dlogits, std::int64_t columns) {
  for (std::int64_t j = 0; j < columns; j += kLanes) store(dlogits + j, zeros(), first(columns - j));
}

/// scale * exp(logits - lse), and at the target (which may lie outside) scale * (exp(logits - lse) - 1).
template <class T, class D>
void row_gradient(D* dlogits, const T* logits, std::int64_t columns, float lse, std::int64_t target, double scale) {
  const bool here = target >= 0 && target < columns;
  const double at_target =
      here ? scale * std::expm1(static_cast<double>(logits[target]) - static_cast<double>(lse)) : 0;
  const Floats shift = broadcast(lse);
  const Floats factor = broadcast(static_cast<float>(scale));
  std::int64_t j = 0;
  for (; j + kLanes <= columns; j += kLanes) store(dlogits + j, lanes::exp(load(logits + j) - shift) * factor);
  if (j < columns) {
    const First inside = first(columns - j);
    store(dlogits + j, lanes::exp(load(logits + j, inside) - shift) * factor, inside);
  }
  if (here) dlogits[target] = D(static_cast<float>(at_target));
}

template <class T, class D>
void loss_rows(const CrossEntropyArgs& args, std::int64_t begin, std::int64_t end) {
  const std::int64_t columns = args.logits.shape[1];
  for (std::int64_t row = begin; row < end; ++row) {
    const T* logits = args.logits.as<T>() + row * args.logits.strides[0];
    const std::int32_t target = args.targets.as<std::int32_t>()[row];
    const float highest = highest_of(logits, columns);
    const double lse =
        static_cast<double>(highest) + std::log(static_cast<double>(sum_of_exp(logits, columns, highest)));
    if (!args.lse.empty()) args.lse.as<float>()[row] = static_cast<float>(lse);
    args.loss.as<float>()[row] =
        target < 0 ? 0.0f : static_cast<float>(lse - static_cast<double>(static_cast<float>(logits[target])));
    if (args.dlogits.empty()) continue;
    D* dlogits = args.dlogits.as<D>() + row * args.dlogits.strides[0];
    if (target < 0) {
      zero_row(dlogits, columns);
    } else {
      row_gradient(dlogits, logits, columns, static_cast<float>(lse), target,
                   args.scale * weight_of(args.weights, row));
    }
  }
}

template <class T>
void fold_chunk(const CrossEntropyChunkArgs& args, std::int64_t begin, std::int64_t end) {
  const std::int64_t columns = args.logits.shape[1];
  for (std::int64_t row = begin; row < end; ++row) {
    const T* logits = args.logits.as<T>() + row * args.logits.strides[0];
    float& running_max = args.running_max.as<float>()[row];
    float& running_sum = args.running_sum.as<float>()[row];
    const float highest = std::fmax(running_max, highest_of(logits, columns));
    float total = sum_of_exp(logits, columns, highest);
    if (running_sum > 0) total += running_sum * exp_of(running_max - highest);
    running_max = highest;
    running_sum = total;
    const std::int64_t target = args.targets.as<std::int32_t>()[row] - args.first_id;
    if (target >= 0 && target < columns) args.target_logit.as<float>()[row] = static_cast<float>(logits[target]);
  }
}

template <class T, class D>
void gradient_rows(const CrossEntropyChunkGradientArgs& args, std::int64_t begin, std::int64_t end) {
  const std::int64_t columns = args.logits.shape[1];
  for (std::int64_t row = begin; row < end; ++row) {
    D* dlogits = args.dlogits.as<D>() + row * args.dlogits.strides[0];
    const std::int32_t target = args.targets.as<std::int32_t>()[row];
    if (target < 0) {
      zero_row(dlogits, columns);
    } else {
      row_gradient(dlogits, args.logits.as<T>() + row * args.logits.strides[0], columns, args.lse.as<float>()[row],
                   target - args.first_id, args.scale * weight_of(args.weights, row));
    }
  }
}

}  // namespace

void rows(const CrossEntropyArgs& args, std::int64_t begin, std::int64_t end) {
  if (args.logits.dtype == DType::bf16) return loss_rows<BFloat16, BFloat16>(args, begin, end);
  if (!args.dlogits.empty() && args.dlogits.dtype == DType::bf16) return loss_rows<float, BFloat16>(args, begin, end);
  loss_rows<float, float>(args, begin, end);
}

void chunk(const CrossEntropyChunkArgs& args, std::int64_t begin, std::int64_t end) {
  args.logits.dtype == DType::f32 ? fold_chunk<float>(args, begin, end) : fold_chunk<BFloat16>(args, begin, end);
}

void chunk_gradient(const CrossEntropyChunkGradientArgs& args, std::int64_t begin, std::int64_t end) {
  if (args.logits.dtype == DType::bf16) return gradient_rows<BFloat16, BFloat16>(args, begin, end);
  if (args.dlogits.dtype == DType::bf16) return gradient_rows<float, BFloat16>(args, begin, end);
  gradient_rows<float, float>(args, begin, end);
}

}  // namespace shoestring::token_loss::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace shoestring::token_loss::simd {

std::string refuses(const CrossEntropyArgs& args) { return needs_simd(args, args.logits.dtype); }
std::string refuses(const CrossEntropyChunkArgs& args) { return needs_simd(args, args.logits.dtype); }
std::string refuses(const CrossEntropyChunkGradientArgs& args) { return needs_simd(args, args.logits.dtype); }

void rows(const CrossEntropyArgs& args) {
  const auto run = SHOESTRING_SIMD(rows);
  args.stream.workers().split(args.logits.shape[0], 1,
                              [&](std::int64_t begin, std::int64_t end) { run(args, begin, end); });
}

void chunk(const CrossEntropyChunkArgs& args) {
  const auto run = SHOESTRING_SIMD(chunk);
  args.stream.workers().split(args.logits.shape[0], 1,
                              [&](std::int64_t begin, std::int64_t end) { run(args, begin, end); });
}

void chunk_gradient(const CrossEntropyChunkGradientArgs& args) {
  const auto run = SHOESTRING_SIMD(chunk_gradient);
  args.stream.workers().split(args.logits.shape[0], 1,
                              [&](std::int64_t begin, std::int64_t end) { run(args, begin, end); });
}

}  // namespace shoestring::token_loss::simd
#endif
