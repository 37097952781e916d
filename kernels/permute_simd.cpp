// Gather and combine in vectors: the reference's operations in its order, sixteen columns at a time. Compiled once for
// each instruction set.
#include <algorithm>

#include "kernels/base/workers.h"
#include "kernels/cpu_refusals.h"
#include "kernels/permute.h"

#include "kernels/simd_target.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/permute_simd.cpp"
#include <hwy/foreach_target.h>

#include "kernels/lanes_simd.h"

HWY_BEFORE_NAMESPACE();
namespace shoestring::permute::HWY_NAMESPACE {
namespace {

using namespace shoestring::HWY_NAMESPACE::lanes;

template <class T>
void gather_rows(const GatherRowsArgs& args, std::int64_t begin, std::int64_t end) {
  const std::int64_t k = args.plan.row_of_slot.shape[0] / args.x.shape[0];
  const std::int64_t hidden = args.x.shape[1];
  const auto* slot_of_row = args.plan.slot_of_row.as<std::int32_t>();
  for (std::int64_t row = begin; row < end; ++row) {
    const bool taken = slot_of_row[row] >= 0;
    const std::int64_t slot = taken ? slot_of_row[row] : 0;
    const Floats w = broadcast(args.weights.as<float>()[slot]);
    const T* from = args.x.as<T>() + slot / k * args.x.strides[0];
    T* to = args.xp.as<T>() + row * args.xp.strides[0];
    for (std::int64_t j = 0; j < hidden; j += kLanes) {
      const First lanes = first(hidden - j);
      store(to + j, taken ? w * load(from + j, lanes) : zeros(), lanes);
    }
  }
}

// One pass per `vectors` vectors of columns: their sums stay in registers over the token's choices.
template <class T, int vectors>
void combine_columns(const CombineRowsArgs& args, std::int64_t token, std::int64_t k, std::int64_t j, First lanes) {
  const auto* row_of_slot = args.plan.row_of_slot.as<std::int32_t>();
  T* y = args.y.as<T>() + token * args.y.strides[0] + j;
  Floats sums[vectors];
  for (int v = 0; v < vectors; ++v) sums[v] = args.accumulate ? load(y + v * kLanes, lanes) : zeros();
  for (std::int64_t slot = token * k; slot < (token + 1) * k; ++slot) {
    if (row_of_slot[slot] < 0) continue;
    const T* from = args.yp.as<T>() + row_of_slot[slot] * args.yp.strides[0] + j;
    if (args.weights.empty()) {
      for (int v = 0; v < vectors; ++v) sums[v] = sums[v] + load(from + v * kLanes, lanes);
    } else {
      const Floats w = broadcast(args.weights.as<float>()[slot]);
      for (int v = 0; v < vectors; ++v) sums[v] = fma(w, load(from + v * kLanes, lanes), sums[v]);
    }
  }
  for (int v = 0; v < vectors; ++v) store(y + v * kLanes, sums[v], lanes);
}

template <class T>
void combine_rows(const CombineRowsArgs& args, std::int64_t begin, std::int64_t end) {
  const std::int64_t k = args.plan.row_of_slot.shape[0] / args.y.shape[0];
  const std::int64_t hidden = args.y.shape[1];
  for (std::int64_t token = begin; token < end; ++token) {
    std::int64_t j = 0;
    for (; j + 4 * kLanes <= hidden; j += 4 * kLanes) combine_columns<T, 4>(args, token, k, j, first(kLanes));
    for (; j < hidden; j += kLanes) combine_columns<T, 1>(args, token, k, j, first(hidden - j));
  }
}

}  // namespace

void gather(const GatherRowsArgs& args, std::int64_t begin, std::int64_t end) {
  args.x.dtype == DType::f32 ? gather_rows<float>(args, begin, end) : gather_rows<BFloat16>(args, begin, end);
}

void combine(const CombineRowsArgs& args, std::int64_t begin, std::int64_t end) {
  args.y.dtype == DType::f32 ? combine_rows<float>(args, begin, end) : combine_rows<BFloat16>(args, begin, end);
}

}  // namespace shoestring::permute::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace shoestring::permute::simd {

std::string refuses(const GatherRowsArgs& args) {
  // Bytes are copied without looking at them.
  return needs_simd(args, args.weights.empty() ? DType::f32 : args.x.dtype);
}
std::string refuses(const CombineRowsArgs& args) { return needs_simd(args, args.y.dtype); }

void gather(const GatherRowsArgs& args) {
  if (args.weights.empty()) return copy_rows(args);
  const auto range = SHOESTRING_SIMD(gather);
  args.stream.workers().split(args.xp.shape[0], row_grain(args.x.shape[1]),
                              [&](std::int64_t begin, std::int64_t end) { range(args, begin, end); });
}

void combine(const CombineRowsArgs& args) {
  const std::int64_t k = args.plan.row_of_slot.shape[0] / args.y.shape[0];
  const auto range = SHOESTRING_SIMD(combine);
  args.stream.workers().split(args.y.shape[0], row_grain(args.y.shape[1] * (k + 1)),
                              [&](std::int64_t begin, std::int64_t end) { range(args, begin, end); });
}

}  // namespace shoestring::permute::simd
#endif
