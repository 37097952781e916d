// Reductions in vectors: the 32 running sums of the contract are doubles in registers. Compiled once for each
// instruction set.
#include <bit>

#include "kernels/base/workers.h"
#include "kernels/cpu_refusals.h"
#include "kernels/reduce.h"

#include "kernels/simd_target.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/reduce_simd.cpp"
#include <hwy/foreach_target.h>

#include "kernels/lanes_simd.h"

HWY_BEFORE_NAMESPACE();
namespace shoestring::reduce::HWY_NAMESPACE {
namespace {

using namespace shoestring::HWY_NAMESPACE::lanes;

template <bool squared>
HWY_INLINE void add(Doubles& sum, Floats values) {
  const Doubles wide = widened(values);
  sum = squared ? fma(wide, wide, sum) : sum + wide;
}

template <bool squared, class T>
double block_sum(const T* x, std::int64_t count) {
  static_assert(kSums == 2 * kLanes);
  alignas(64) double lanes[kSums];
  Doubles low = no_doubles(), high = no_doubles();
  for (std::int64_t i = 0; i < count; i += kSums) {
    add<squared>(low, load(x + i, first(count - i)));
    if (count - i > kLanes) add<squared>(high, load(x + i + kLanes, first(count - i - kLanes)));
  }
  store(lanes, low);
  store(lanes + kLanes, high);
  return pairwise_sum(lanes);
}

// Magnitudes order as integers do, NaN above everything.
template <class T>
double block_max(const T* x, std::int64_t count) {
  const Ints magnitude = broadcast(std::int32_t{0x7FFFFFFF});
  Ints most = broadcast(std::int32_t{0});
  for (std::int64_t i = 0; i < count; i += kLanes) {
    most = greater(most, bits_of(load(x + i, first(count - i))) & magnitude);
  }
  return static_cast<double>(std::bit_cast<float>(largest(most)));
}

template <class T>
double block_of(ReduceKind kind, const T* x, std::int64_t count) {
  switch (kind) {
    case ReduceKind::sum: return block_sum<false>(x, count);
    case ReduceKind::sum_of_squares: return block_sum<true>(x, count);
    default: return block_max(x, count);
  }
}

template <class Out, class X, class Y>
void axpby_range(const AxpbyArgs& args, std::int64_t begin, std::int64_t end) {
  const Floats a = broadcast(static_cast<float>(args.a));
  const Floats b = broadcast(static_cast<float>(args.b));
  Out* out = args.out.as<Out>();
  const X* x = args.x.as<X>();
  const Y* y = args.y.as<Y>();
  for (std::int64_t i = begin; i < end; i += kLanes) {
    const First lanes = first(end - i);
    const Floats scaled = load(x + i, lanes);
    store(out + i, y == nullptr ? a * scaled : fma(a, scaled, b * load(y + i, lanes)), lanes);
  }
}

template <class Out>
void axpby_into(const AxpbyArgs& args, std::int64_t begin, std::int64_t end) {
  const bool narrow_y = args.y.dtype == DType::bf16;
  if (args.x.dtype == DType::bf16) {
    return narrow_y ? axpby_range<Out, BFloat16, BFloat16>(args, begin, end)
                    : axpby_range<Out, BFloat16, float>(args, begin, end);
  }
  narrow_y ? axpby_range<Out, float, BFloat16>(args, begin, end) : axpby_range<Out, float, float>(args, begin, end);
}

}  // namespace

double block_value(const ReduceArgs& args, std::int64_t begin, std::int64_t count) {
  if (args.x.dtype == DType::f32) return block_of(args.kind, args.x.as<float>() + begin, count);
  return block_of(args.kind, args.x.as<BFloat16>() + begin, count);
}

void axpby(const AxpbyArgs& args, std::int64_t begin, std::int64_t end) {
  args.out.dtype == DType::f32 ? axpby_into<float>(args, begin, end) : axpby_into<BFloat16>(args, begin, end);
}

}  // namespace shoestring::reduce::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace shoestring::reduce::simd {

std::string refuses(const ReduceArgs& args) { return needs_simd(args, args.x.dtype); }
std::string refuses(const AxpbyArgs& args) { return needs_simd(args, args.out.dtype); }

void run(const ReduceArgs& args) { over_blocks(args, SHOESTRING_SIMD(block_value)); }

void run(const AxpbyArgs& args) {
  const auto range = SHOESTRING_SIMD(axpby);
  args.stream.workers().split(args.out.elements(), kAxpbyGrain,
                              [&](std::int64_t begin, std::int64_t end) { range(args, begin, end); });
}

}  // namespace shoestring::reduce::simd
#endif
