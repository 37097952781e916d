// Gather and combine in AVX-512: the reference's operations in its order, 16 columns at a time.
#include <algorithm>

#include "kernels/base/workers.h"
#include "kernels/cpu_refusals.h"
#include "kernels/lanes_avx512.h"
#include "kernels/permute.h"

// GCC 12 takes undefined operands inside its own intrinsics for uninitialised values (its bug 105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"

namespace shoestring::permute::avx512 {

std::string refuses(const GatherRowsArgs& args) {
  // Bytes are copied without looking at them.
  return needs_avx512(args, args.weights.empty() ? DType::f32 : args.x.dtype);
}
std::string refuses(const CombineRowsArgs& args) { return needs_avx512(args, args.y.dtype); }

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq")
namespace {

using namespace lanes_avx512;

template <class T>
void gather_range(const GatherRowsArgs& args, std::int64_t begin, std::int64_t end) {
  const std::int64_t k = args.plan.row_of_slot.shape[0] / args.x.shape[0];
  const std::int64_t hidden = args.x.shape[1];
  const auto* slot_of_row = args.plan.slot_of_row.as<std::int32_t>();
  for (std::int64_t row = begin; row < end; ++row) {
    const bool taken = slot_of_row[row] >= 0;
    const std::int64_t slot = taken ? slot_of_row[row] : 0;
    const __m512 w = _mm512_set1_ps(args.weights.as<float>()[slot]);
    const T* from = args.x.as<T>() + slot / k * args.x.strides[0];
    T* to = args.xp.as<T>() + row * args.xp.strides[0];
    for (std::int64_t j = 0; j < hidden; j += kLanes) {
      const __mmask16 mask = first(hidden - j);
      store(to + j, taken ? _mm512_mul_ps(w, load(from + j, mask)) : _mm512_setzero_ps(), mask);
    }
  }
}

// One pass per four vectors of columns: their sums stay in registers over the token's choices.
template <class T, int vectors>
void combine_columns(const CombineRowsArgs& args, std::int64_t token, std::int64_t k, std::int64_t j, __mmask16 mask) {
  const auto* row_of_slot = args.plan.row_of_slot.as<std::int32_t>();
  T* y = args.y.as<T>() + token * args.y.strides[0] + j;
  __m512 sums[vectors];
  for (int v = 0; v < vectors; ++v) sums[v] = args.accumulate ? load(y + v * kLanes, mask) : _mm512_setzero_ps();
  for (std::int64_t slot = token * k; slot < (token + 1) * k; ++slot) {
    if (row_of_slot[slot] < 0) continue;
    const T* from = args.yp.as<T>() + row_of_slot[slot] * args.yp.strides[0] + j;
    if (args.weights.empty()) {
      for (int v = 0; v < vectors; ++v) sums[v] = _mm512_add_ps(sums[v], load(from + v * kLanes, mask));
    } else {
      const __m512 w = _mm512_set1_ps(args.weights.as<float>()[slot]);
      for (int v = 0; v < vectors; ++v) sums[v] = _mm512_fmadd_ps(w, load(from + v * kLanes, mask), sums[v]);
    }
  }
  for (int v = 0; v < vectors; ++v) store(y + v * kLanes, sums[v], mask);
}

template <class T>
void combine_range(const CombineRowsArgs& args, std::int64_t begin, std::int64_t end) {
  const std::int64_t k = args.plan.row_of_slot.shape[0] / args.y.shape[0];
  const std::int64_t hidden = args.y.shape[1];
  for (std::int64_t token = begin; token < end; ++token) {
    std::int64_t j = 0;
    for (; j + 4 * kLanes <= hidden; j += 4 * kLanes) combine_columns<T, 4>(args, token, k, j, first(kLanes));
    for (; j < hidden; j += kLanes) combine_columns<T, 1>(args, token, k, j, first(hidden - j));
  }
}

}  // namespace
#pragma GCC pop_options

void gather(const GatherRowsArgs& args) {
  if (args.weights.empty()) return copy_rows(args);
  const auto range = args.x.dtype == DType::f32 ? gather_range<float> : gather_range<BFloat16>;
  args.stream.workers().split(args.xp.shape[0], row_grain(args.x.shape[1]),
                              [&](std::int64_t begin, std::int64_t end) { range(args, begin, end); });
}

void combine(const CombineRowsArgs& args) {
  const std::int64_t k = args.plan.row_of_slot.shape[0] / args.y.shape[0];
  const auto range = args.y.dtype == DType::f32 ? combine_range<float> : combine_range<BFloat16>;
  args.stream.workers().split(args.y.shape[0], row_grain(args.y.shape[1] * (k + 1)),
                              [&](std::int64_t begin, std::int64_t end) { range(args, begin, end); });
}

}  // namespace shoestring::permute::avx512
