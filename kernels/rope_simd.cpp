// The rotation in vectors, with the reference's fused operations, so that the bits agree. Compiled once for each
// instruction set.
#include <cstring>

#include "kernels/base/workers.h"
#include "kernels/cpu_refusals.h"
#include "kernels/rope.h"

#include "kernels/simd_target.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/rope_simd.cpp"
#include <hwy/foreach_target.h>

#include "kernels/lanes_simd.h"

HWY_BEFORE_NAMESPACE();
namespace shoestring::rotary::HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;
using namespace shoestring::HWY_NAMESPACE::lanes;

constexpr std::int32_t kUpperHalf = -65536;  // of a lane

struct Pair {
  Floats a;
  Floats b;
};

HWY_INLINE Pair turn(Pair of, Floats cosine, Floats sine, bool inverse) {
  const Floats a = of.b * sine;
  const Floats b = of.a * sine;
  if (inverse) return {fma(of.a, cosine, a), fms(of.b, cosine, b)};
  return {fms(of.a, cosine, a), fma(of.b, cosine, b)};
}

// Sixteen pairs of neighbours.
HWY_INLINE Pair load_pairs(const float* x) {
  Pair r;
  for (int p = 0; p < kParts; ++p) hn::LoadInterleaved2(F(), x + 2 * p * kPart, r.a.part[p], r.b.part[p]);
  return r;
}
HWY_INLINE void store_pairs(float* x, Pair pair) {
  for (int p = 0; p < kParts; ++p) hn::StoreInterleaved2(pair.a.part[p], pair.b.part[p], F(), x + 2 * p * kPart);
}
// A pair of bf16 is one 32-bit lane: a below, b above.
HWY_INLINE Pair load_pairs(const BFloat16* x) {
  const Ints both = load(reinterpret_cast<const std::int32_t*>(x));
  return {from_bits(shift_left<16>(both)), from_bits(both & broadcast(kUpperHalf))};
}
HWY_INLINE void store_pairs(BFloat16* x, Pair pair) {
  const Ints below = shift_right<16>(bits_of(rounded(x, pair.a))) & broadcast(~kUpperHalf);
  store(reinterpret_cast<std::int32_t*>(x), bits_of(rounded(x, pair.b)) | below);
}

template <class T>
void turn_half_split(T* x, const float* cosines, const float* sines, std::int64_t pairs, bool inverse) {
  T* y = x + pairs;
  std::int64_t i = 0;
  for (; i + kLanes <= pairs; i += kLanes) {
    const Pair turned = turn({load(x + i), load(y + i)}, load(cosines + i), load(sines + i), inverse);
    store(x + i, turned.a);
    store(y + i, turned.b);
  }
  if (i == pairs) return;
  const First lanes = first(pairs - i);
  const Pair turned =
      turn({load(x + i, lanes), load(y + i, lanes)}, load(cosines + i, lanes), load(sines + i, lanes), inverse);
  store(x + i, turned.a, lanes);
  store(y + i, turned.b, lanes);
}

template <class T>
void turn_interleaved(T* x, const float* cosines, const float* sines, std::int64_t pairs, bool inverse) {
  std::int64_t i = 0;
  for (; i + kLanes <= pairs; i += kLanes) {
    store_pairs(x + 2 * i, turn(load_pairs(x + 2 * i), load(cosines + i), load(sines + i), inverse));
  }
  if (i == pairs) return;
  T room[2 * kLanes] = {};
  const First lanes = first(pairs - i);
  const std::size_t bytes = static_cast<std::size_t>(2 * lanes.count) * sizeof(T);
  std::memcpy(room, x + 2 * i, bytes);
  store_pairs(room, turn(load_pairs(room), load(cosines + i, lanes), load(sines + i, lanes), inverse));
  std::memcpy(x + 2 * i, room, bytes);
}

template <class T>
void turn_tokens(const RopeArgs& args, std::int64_t begin, std::int64_t end) {
  const std::int64_t pairs = args.table.dim() / 2;
  const auto turn_head = args.table.style == RopeStyle::interleaved ? turn_interleaved<T> : turn_half_split<T>;
  for (std::int64_t token = begin; token < end; ++token) {
    const std::int64_t position = args.positions.as<std::int32_t>()[token];
    const float* cosines = args.table.cosines.as<float>() + position * pairs;
    const float* sines = args.table.sines.as<float>() + position * pairs;
    for (std::int64_t head = 0; head < args.x.shape[1]; ++head) {
      turn_head(args.x.as<T>() + token * args.x.strides[0] + head * args.x.strides[1], cosines, sines, pairs,
                args.inverse);
    }
  }
}

}  // namespace

void rotate(const RopeArgs& args, std::int64_t begin, std::int64_t end) {
  args.x.dtype == DType::f32 ? turn_tokens<float>(args, begin, end) : turn_tokens<BFloat16>(args, begin, end);
}

}  // namespace shoestring::rotary::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace shoestring::rotary::simd {

std::string refuses(const RopeArgs& args) {
  if (args.x.device.kind != DeviceKind::cpu) return "the tensor is on a GPU";
  return needs_simd(args, args.x.dtype);
}

void rotate(const RopeArgs& args) {
  const auto tokens = SHOESTRING_SIMD(rotate);
  args.stream.workers().split(args.x.shape[0], 16,
                              [&](std::int64_t begin, std::int64_t end) { tokens(args, begin, end); });
}

}  // namespace shoestring::rotary::simd
#endif
