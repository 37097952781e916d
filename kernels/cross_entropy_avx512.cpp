#include <immintrin.h>

#include <cmath>
#include <limits>

#include "kernels/base/cpu.h"
#include "kernels/base/workers.h"
#include "kernels/cross_entropy.h"
#include "kernels/exp_avx512.h"
#include "kernels/lanes_avx512.h"

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq")
// GCC 12 takes undefined operands inside its own intrinsics for uninitialised values (its bug 105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"

namespace shoestring::token_loss::avx512 {
namespace {

namespace lanes = lanes_avx512;

constexpr float kLowest = -std::numeric_limits<float>::infinity();

template <class T>
float highest_of(const T* logits, std::int64_t columns) {
  __m512 highest = _mm512_set1_ps(kLowest);
  std::int64_t j = 0;
  for (; j + 16 <= columns; j += 16) highest = _mm512_max_ps(highest, lanes::load(logits + j));
  const __mmask16 mask = lanes::first(columns - j);
  highest = _mm512_mask_max_ps(highest, mask, highest, lanes::load(logits + j, mask));
  return _mm512_reduce_max_ps(highest);
}

/// sum_j exp(logits[j] - highest): lane j % 16 adds its elements in order.
template <class T>
float sum_of_exp(const T* logits, std::int64_t columns, float highest) {
  const __m512 shift = _mm512_set1_ps(highest);
  __m512 sum = _mm512_setzero_ps();
  std::int64_t j = 0;
  for (; j + 16 <= columns; j += 16) {
    sum = _mm512_add_ps(sum, lanes_avx512::exp(_mm512_sub_ps(lanes::load(logits + j), shift)));
  }
  const __mmask16 mask = lanes::first(columns - j);
  const __m512 rest = lanes_avx512::exp(_mm512_sub_ps(lanes::load(logits + j, mask), shift));
  return lanes::sum(_mm512_mask_add_ps(sum, mask, sum, rest));
}

template <class D>
void zero_row(D* dlogits, std::int64_t columns) {
  for (std::int64_t j = 0; j < columns; j += 16) {
    lanes::store(dlogits + j, _mm512_setzero_ps(), lanes::first(columns - j));
  }
}

/// scale * exp(logits - lse), and at the target (which may lie outside) scale * (exp(logits - lse) - 1).
template <class T, class D>
void row_gradient(D* dlogits, const T* logits, std::int64_t columns, float lse, std::int64_t target, double scale) {
  const bool here = target >= 0 && target < columns;
  const double at_target =
      here ? scale * std::expm1(static_cast<double>(logits[target]) - static_cast<double>(lse)) : 0;
  const __m512 shift = _mm512_set1_ps(lse);
  const __m512 factor = _mm512_set1_ps(static_cast<float>(scale));
  std::int64_t j = 0;
  for (; j + 16 <= columns; j += 16) {
    const __m512 probability = lanes_avx512::exp(_mm512_sub_ps(lanes::load(logits + j), shift));
    lanes::store(dlogits + j, _mm512_mul_ps(probability, factor));
  }
  const __mmask16 mask = lanes::first(columns - j);
  const __m512 probability = lanes_avx512::exp(_mm512_sub_ps(lanes::load(logits + j, mask), shift));
  lanes::store(dlogits + j, _mm512_mul_ps(probability, factor), mask);
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

void loss_range(const CrossEntropyArgs& args, std::int64_t begin, std::int64_t end) {
  if (args.logits.dtype == DType::bf16) return loss_rows<BFloat16, BFloat16>(args, begin, end);
  if (!args.dlogits.empty() && args.dlogits.dtype == DType::bf16) return loss_rows<float, BFloat16>(args, begin, end);
  loss_rows<float, float>(args, begin, end);
}

template <class T>
void fold_chunk(const CrossEntropyChunkArgs& args, std::int64_t begin, std::int64_t end) {
  const std::int64_t columns = args.logits.shape[1];
  for (std::int64_t row = begin; row < end; ++row) {
    const T* logits = args.logits.as<T>() + row * args.logits.strides[0];
    float& running_max = args.running_max.as<float>()[row];
    float& running_sum = args.running_sum.as<float>()[row];
    const float highest = std::fmax(running_max, highest_of(logits, columns));
    float sum = sum_of_exp(logits, columns, highest);
    if (running_sum > 0) sum += running_sum * std::exp(running_max - highest);
    running_max = highest;
    running_sum = sum;
    const std::int64_t target = args.targets.as<std::int32_t>()[row] - args.first_id;
    if (target >= 0 && target < columns) args.target_logit.as<float>()[row] = static_cast<float>(logits[target]);
  }
}

void fold_range(const CrossEntropyChunkArgs& args, std::int64_t begin, std::int64_t end) {
  if (args.logits.dtype == DType::f32) {
    fold_chunk<float>(args, begin, end);
  } else {
    fold_chunk<BFloat16>(args, begin, end);
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

void gradient_range(const CrossEntropyChunkGradientArgs& args, std::int64_t begin, std::int64_t end) {
  if (args.logits.dtype == DType::bf16) return gradient_rows<BFloat16, BFloat16>(args, begin, end);
  if (args.dlogits.dtype == DType::bf16) return gradient_rows<float, BFloat16>(args, begin, end);
  gradient_rows<float, float>(args, begin, end);
}

}  // namespace
}  // namespace shoestring::token_loss::avx512
#pragma GCC pop_options

namespace shoestring::token_loss::avx512 {
namespace {

std::string refuses_logits(const ConstTensorView& logits) {
  if (logits.device.kind != DeviceKind::cpu) return "the tensors are on a GPU";
  if (!cpu_features().avx512) return "the processor lacks AVX-512";
  if (logits.dtype == DType::f64) return "f64 is served by the reference only";
  return {};
}

}  // namespace

std::string refuses(const CrossEntropyArgs& args) { return refuses_logits(args.logits); }
std::string refuses(const CrossEntropyChunkArgs& args) { return refuses_logits(args.logits); }
std::string refuses(const CrossEntropyChunkGradientArgs& args) { return refuses_logits(args.logits); }

void rows(const CrossEntropyArgs& args) {
  args.stream.workers().split(args.logits.shape[0], 1,
                              [&](std::int64_t begin, std::int64_t end) { loss_range(args, begin, end); });
}

void chunk(const CrossEntropyChunkArgs& args) {
  args.stream.workers().split(args.logits.shape[0], 1,
                              [&](std::int64_t begin, std::int64_t end) { fold_range(args, begin, end); });
}

void chunk_gradient(const CrossEntropyChunkGradientArgs& args) {
  args.stream.workers().split(args.logits.shape[0], 1,
                              [&](std::int64_t begin, std::int64_t end) { gradient_range(args, begin, end); });
}

}  // namespace shoestring::token_loss::avx512
