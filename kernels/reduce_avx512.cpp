// Reductions in AVX-512: the 32 running sums of the contract are four registers of doubles.
#include <bit>

#include "kernels/base/workers.h"
#include "kernels/cpu_refusals.h"
#include "kernels/lanes_avx512.h"
#include "kernels/reduce.h"

// GCC 12 takes undefined operands inside its own intrinsics for uninitialised values (its bug 105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"

namespace shoestring::reduce::avx512 {

std::string refuses(const ReduceArgs& args) { return needs_avx512(args, args.x.dtype); }
std::string refuses(const AxpbyArgs& args) { return needs_avx512(args, args.out.dtype); }

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq")
namespace {

using namespace lanes_avx512;

template <bool squared>
__attribute__((always_inline)) inline __m512d added(__m512d sum, __m256 values) {
  const __m512d wide = _mm512_cvtps_pd(values);
  return squared ? _mm512_fmadd_pd(wide, wide, sum) : _mm512_add_pd(sum, wide);
}

template <bool squared, class T>
double block_sum(const T* x, std::int64_t count) {
  alignas(64) double lanes[kSums];
  __m512d sums[4] = {_mm512_setzero_pd(), _mm512_setzero_pd(), _mm512_setzero_pd(), _mm512_setzero_pd()};
  for (std::int64_t i = 0; i < count; i += kSums) {
    const __m512 low = load(x + i, first(count - i));
    const __m512 high = count - i > kLanes ? load(x + i + kLanes, first(count - i - kLanes)) : _mm512_setzero_ps();
    sums[0] = added<squared>(sums[0], _mm512_castps512_ps256(low));
    sums[1] = added<squared>(sums[1], _mm512_extractf32x8_ps(low, 1));
    sums[2] = added<squared>(sums[2], _mm512_castps512_ps256(high));
    sums[3] = added<squared>(sums[3], _mm512_extractf32x8_ps(high, 1));
  }
  for (int i = 0; i < 4; ++i) _mm512_store_pd(lanes + 8 * i, sums[i]);
  return pairwise_sum(lanes);
}

// Magnitudes order as integers do, NaN above everything.
template <class T>
double block_max(const T* x, std::int64_t count) {
  const __m512i magnitude = _mm512_set1_epi32(0x7FFFFFFF);
  __m512i most = _mm512_setzero_si512();
  for (std::int64_t i = 0; i < count; i += kLanes) {
    const __m512i bits = _mm512_castps_si512(load(x + i, first(count - i)));
    most = _mm512_max_epi32(most, _mm512_and_si512(bits, magnitude));
  }
  return static_cast<double>(std::bit_cast<float>(_mm512_reduce_max_epi32(most)));
}

template <class T>
double block_of(ReduceKind kind, const T* x, std::int64_t count) {
  switch (kind) {
    case ReduceKind::sum: return block_sum<false>(x, count);
    case ReduceKind::sum_of_squares: return block_sum<true>(x, count);
    default: return block_max(x, count);
  }
}

double block_value(const ReduceArgs& args, std::int64_t begin, std::int64_t count) {
  if (args.x.dtype == DType::f32) return block_of(args.kind, args.x.as<float>() + begin, count);
  return block_of(args.kind, args.x.as<BFloat16>() + begin, count);
}

template <class Out, class X, class Y>
void axpby_range(const AxpbyArgs& args, std::int64_t begin, std::int64_t end) {
  const __m512 a = _mm512_set1_ps(static_cast<float>(args.a));
  const __m512 b = _mm512_set1_ps(static_cast<float>(args.b));
  Out* out = args.out.as<Out>();
  const X* x = args.x.as<X>();
  const Y* y = args.y.as<Y>();
  if (y == nullptr) {
    for (std::int64_t i = begin; i < end; i += kLanes) {
      const __mmask16 mask = first(end - i);
      store(out + i, _mm512_mul_ps(a, load(x + i, mask)), mask);
    }
    return;
  }
  for (std::int64_t i = begin; i < end; i += kLanes) {
    const __mmask16 mask = first(end - i);
    const __m512 added = _mm512_mul_ps(b, load(y + i, mask));
    store(out + i, _mm512_fmadd_ps(a, load(x + i, mask), added), mask);
  }
}

using AxpbyRange = void (*)(const AxpbyArgs&, std::int64_t, std::int64_t);
template <class Out>
AxpbyRange axpby_into(const AxpbyArgs& args) {
  const bool narrow_y = args.y.dtype == DType::bf16;
  if (args.x.dtype == DType::bf16) {
    return narrow_y ? axpby_range<Out, BFloat16, BFloat16> : axpby_range<Out, BFloat16, float>;
  }
  return narrow_y ? axpby_range<Out, float, BFloat16> : axpby_range<Out, float, float>;
}

}  // namespace
#pragma GCC pop_options

void run(const ReduceArgs& args) { over_blocks(args, block_value); }

void run(const AxpbyArgs& args) {
  const AxpbyRange range = args.out.dtype == DType::f32 ? axpby_into<float>(args) : axpby_into<BFloat16>(args);
  args.stream.workers().split(args.out.elements(), kAxpbyGrain,
                              [&](std::int64_t begin, std::int64_t end) { range(args, begin, end); });
}

}  // namespace shoestring::reduce::avx512
