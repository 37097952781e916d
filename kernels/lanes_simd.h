// Sixteen floats at a time from rows of f32 or bf16, for the vector rows of ops, on whatever vectors the processor has:
// one register of AVX-512, two of AVX2, four of NEON, through Highway. Not for the reader of models.
//
// A row is written once, for sixteen lanes; Highway compiles its file for each instruction set (foreach_target.h) and
// kernels/base/cpu.cpp says which one runs. Because the lanes are sixteen everywhere, sums run in one order everywhere:
// a row gives the same bits on every processor, which tests hold.
//
// bf16 is widened exactly and rounded to nearest even as BFloat16(float) does, subnormals and NaN included.
#if defined(SHOESTRING_KERNELS_LANES_SIMD_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SHOESTRING_KERNELS_LANES_SIMD_H_
#undef SHOESTRING_KERNELS_LANES_SIMD_H_
#else
#define SHOESTRING_KERNELS_LANES_SIMD_H_
#endif

#include <algorithm>
#include <cstdint>
#include <cstring>

#include <hwy/highway.h>

#include "kernels/base/dtype.h"

HWY_BEFORE_NAMESPACE();
namespace shoestring::HWY_NAMESPACE::lanes {

namespace hn = hwy::HWY_NAMESPACE;

inline constexpr std::int64_t kLanes = 16;
using F = hn::CappedTag<float, kLanes>;
using I = hn::RebindToSigned<F>;
using U = hn::RebindToUnsigned<F>;
inline constexpr std::int64_t kPart = static_cast<std::int64_t>(hn::MaxLanes(F()));
inline constexpr int kParts = static_cast<int>(kLanes / kPart);

struct Floats {
  hn::Vec<F> part[kParts];
};
struct Ints {
  hn::Vec<I> part[kParts];
};
struct Mask {
  hn::Mask<F> part[kParts];
};
/// Sixteen doubles, for sums: twice the registers.
using D = hn::CappedTag<double, kPart / 2>;
struct Doubles {
  hn::Vec<D> part[2 * kParts];
};

/// The first `count` lanes, all of them from 16 on, none below 1.
struct First {
  std::int64_t count;
  HWY_INLINE bool all() const { return count >= kLanes; }
};
HWY_INLINE First first(std::int64_t count) { return {count}; }
/// Every lane, known when the code is compiled: what the rounds of a loop but its last are written for.
struct All {};

HWY_INLINE Floats broadcast(float value) {
  Floats r;
  for (int p = 0; p < kParts; ++p) r.part[p] = hn::Set(F(), value);
  return r;
}
HWY_INLINE Ints broadcast(std::int32_t value) {
  Ints r;
  for (int p = 0; p < kParts; ++p) r.part[p] = hn::Set(I(), value);
  return r;
}
HWY_INLINE Floats zeros() { return broadcast(0.0f); }

// Arithmetic, lane by lane; -ffp-contract=off keeps a product and a sum apart unless fma says otherwise.
HWY_INLINE Floats operator+(Floats a, Floats b) {
  for (int p = 0; p < kParts; ++p) a.part[p] = hn::Add(a.part[p], b.part[p]);
  return a;
}
HWY_INLINE Floats operator-(Floats a, Floats b) {
  for (int p = 0; p < kParts; ++p) a.part[p] = hn::Sub(a.part[p], b.part[p]);
  return a;
}
HWY_INLINE Floats operator*(Floats a, Floats b) {
  for (int p = 0; p < kParts; ++p) a.part[p] = hn::Mul(a.part[p], b.part[p]);
  return a;
}
HWY_INLINE Floats operator/(Floats a, Floats b) {
  for (int p = 0; p < kParts; ++p) a.part[p] = hn::Div(a.part[p], b.part[p]);
  return a;
}
/// a b + c, rounded once.
HWY_INLINE Floats fma(Floats a, Floats b, Floats c) {
  for (int p = 0; p < kParts; ++p) a.part[p] = hn::MulAdd(a.part[p], b.part[p], c.part[p]);
  return a;
}
/// c - a b, rounded once.
HWY_INLINE Floats fnma(Floats a, Floats b, Floats c) {
  for (int p = 0; p < kParts; ++p) a.part[p] = hn::NegMulAdd(a.part[p], b.part[p], c.part[p]);
  return a;
}
/// a b - c, rounded once.
HWY_INLINE Floats fms(Floats a, Floats b, Floats c) {
  for (int p = 0; p < kParts; ++p) a.part[p] = hn::MulSub(a.part[p], b.part[p], c.part[p]);
  return a;
}
HWY_INLINE Floats sqrt(Floats a) {
  for (int p = 0; p < kParts; ++p) a.part[p] = hn::Sqrt(a.part[p]);
  return a;
}
HWY_INLINE Floats abs(Floats a) {
  for (int p = 0; p < kParts; ++p) a.part[p] = hn::Abs(a.part[p]);
  return a;
}
/// To the nearest integer, ties to even.
HWY_INLINE Floats round(Floats a) {
  for (int p = 0; p < kParts; ++p) a.part[p] = hn::Round(a.part[p]);
  return a;
}

HWY_INLINE Mask operator<(Floats a, Floats b) {
  Mask r;
  for (int p = 0; p < kParts; ++p) r.part[p] = hn::Lt(a.part[p], b.part[p]);
  return r;
}
HWY_INLINE Mask operator==(Floats a, Floats b) {
  Mask r;
  for (int p = 0; p < kParts; ++p) r.part[p] = hn::Eq(a.part[p], b.part[p]);
  return r;
}
HWY_INLINE Mask is_nan(Floats a) {
  Mask r;
  for (int p = 0; p < kParts; ++p) r.part[p] = hn::IsNaN(a.part[p]);
  return r;
}
HWY_INLINE Mask operator!(Mask a) {
  for (int p = 0; p < kParts; ++p) a.part[p] = hn::Not(a.part[p]);
  return a;
}
HWY_INLINE Mask operator&(Mask a, Mask b) {
  for (int p = 0; p < kParts; ++p) a.part[p] = hn::And(a.part[p], b.part[p]);
  return a;
}
HWY_INLINE bool all(Mask a) {
  for (int p = 0; p < kParts; ++p) {
    if (!hn::AllTrue(F(), a.part[p])) return false;
  }
  return true;
}
HWY_INLINE Mask mask_of(First lanes) {
  Mask r;
  const auto count = hn::Set(I(), static_cast<std::int32_t>(std::clamp<std::int64_t>(lanes.count, 0, kLanes)));
  for (int p = 0; p < kParts; ++p) {
    const auto index = hn::Iota(I(), static_cast<std::int32_t>(p * kPart));
    r.part[p] = hn::RebindMask(F(), hn::Lt(index, count));
  }
  return r;
}
/// Lanes of a where the mask holds, of b elsewhere.
HWY_INLINE Floats select(Mask mask, Floats a, Floats b) {
  for (int p = 0; p < kParts; ++p) a.part[p] = hn::IfThenElse(mask.part[p], a.part[p], b.part[p]);
  return a;
}
/// Lanes of a where the mask holds, 0 elsewhere.
HWY_INLINE Floats keep(Mask mask, Floats a) {
  for (int p = 0; p < kParts; ++p) a.part[p] = hn::IfThenElseZero(mask.part[p], a.part[p]);
  return a;
}
/// 0 where the mask holds, lanes of a elsewhere.
HWY_INLINE Floats drop(Mask mask, Floats a) {
  for (int p = 0; p < kParts; ++p) a.part[p] = hn::IfThenZeroElse(mask.part[p], a.part[p]);
  return a;
}
/// a < b ? a : b and a > b ? a : b: b where either is NaN, as the instructions of x86 have it.
HWY_INLINE Floats lesser(Floats a, Floats b) {
#if HWY_ARCH_X86
  for (int p = 0; p < kParts; ++p) a.part[p] = hn::Min(a.part[p], b.part[p]);
  return a;
#else
  return select(a < b, a, b);
#endif
}
HWY_INLINE Floats greater(Floats a, Floats b) {
#if HWY_ARCH_X86
  for (int p = 0; p < kParts; ++p) a.part[p] = hn::Max(a.part[p], b.part[p]);
  return a;
#else
  return select(b < a, a, b);
#endif
}

HWY_INLINE Ints operator+(Ints a, Ints b) {
  for (int p = 0; p < kParts; ++p) a.part[p] = hn::Add(a.part[p], b.part[p]);
  return a;
}
HWY_INLINE Ints operator-(Ints a, Ints b) {
  for (int p = 0; p < kParts; ++p) a.part[p] = hn::Sub(a.part[p], b.part[p]);
  return a;
}
HWY_INLINE Ints operator&(Ints a, Ints b) {
  for (int p = 0; p < kParts; ++p) a.part[p] = hn::And(a.part[p], b.part[p]);
  return a;
}
HWY_INLINE Ints operator|(Ints a, Ints b) {
  for (int p = 0; p < kParts; ++p) a.part[p] = hn::Or(a.part[p], b.part[p]);
  return a;
}
HWY_INLINE Ints greater(Ints a, Ints b) {
  for (int p = 0; p < kParts; ++p) a.part[p] = hn::Max(a.part[p], b.part[p]);
  return a;
}
template <int bits>
HWY_INLINE Ints shift_left(Ints a) {
  for (int p = 0; p < kParts; ++p) a.part[p] = hn::ShiftLeft<bits>(a.part[p]);
  return a;
}
/// With copies of the sign.
template <int bits>
HWY_INLINE Ints shift_right(Ints a) {
  for (int p = 0; p < kParts; ++p) a.part[p] = hn::ShiftRight<bits>(a.part[p]);
  return a;
}
HWY_INLINE Mask operator<(Ints a, Ints b) {
  Mask r;
  for (int p = 0; p < kParts; ++p) r.part[p] = hn::RebindMask(F(), hn::Lt(a.part[p], b.part[p]));
  return r;
}
HWY_INLINE Ints select(Mask mask, Ints a, Ints b) {
  for (int p = 0; p < kParts; ++p) {
    a.part[p] = hn::IfThenElse(hn::RebindMask(I(), mask.part[p]), a.part[p], b.part[p]);
  }
  return a;
}
/// Lanes in which the mask holds.
HWY_INLINE std::int64_t count(Mask mask) {
  std::size_t total = 0;
  for (int p = 0; p < kParts; ++p) total += hn::CountTrue(F(), mask.part[p]);
  return static_cast<std::int64_t>(total);
}
HWY_INLINE Ints bits_of(Floats a) {
  Ints r;
  for (int p = 0; p < kParts; ++p) r.part[p] = hn::BitCast(I(), a.part[p]);
  return r;
}
HWY_INLINE Floats from_bits(Ints a) {
  Floats r;
  for (int p = 0; p < kParts; ++p) r.part[p] = hn::BitCast(F(), a.part[p]);
  return r;
}
/// Towards zero; the least integer for NaN and what does not fit.
HWY_INLINE Ints to_ints(Floats a) {
  Ints r;
  for (int p = 0; p < kParts; ++p) r.part[p] = hn::ConvertTo(I(), a.part[p]);
  return r;
}

// Memory. Addresses need no alignment; lanes outside `lanes` are 0 and their memory is not touched.
HWY_INLINE Floats load(const float* from) {
  Floats r;
  for (int p = 0; p < kParts; ++p) r.part[p] = hn::LoadU(F(), from + p * kPart);
  return r;
}
HWY_INLINE void store(float* to, Floats value) {
  for (int p = 0; p < kParts; ++p) hn::StoreU(value.part[p], F(), to + p * kPart);
}
HWY_INLINE Floats load(const BFloat16* from) {
  const hn::Rebind<std::uint16_t, F> half;
  Floats r;
  for (int p = 0; p < kParts; ++p) {
    const auto bits = hn::LoadU(half, reinterpret_cast<const std::uint16_t*>(from) + p * kPart);
    r.part[p] = hn::BitCast(F(), hn::ShiftLeft<16>(hn::PromoteTo(U(), bits)));
  }
  return r;
}
/// The bits of bf16, in the upper halves of the lanes.
HWY_INLINE hn::Vec<U> rounded_bits(hn::Vec<F> value) {
  const auto raw = hn::BitCast(U(), value);
  const auto odd = hn::And(hn::ShiftRight<16>(raw), hn::Set(U(), 1u));
  const auto nearest = hn::Add(hn::Add(raw, hn::Set(U(), 0x7FFFu)), odd);
  const auto quiet = hn::Set(U(), 0x400000u);
#if HWY_TARGET == HWY_AVX3
  return hn::Vec<U>{_mm512_mask_or_epi32(nearest.raw, hn::IsNaN(value).raw, raw.raw, quiet.raw)};
#else
  return hn::IfThenElse(hn::RebindMask(U(), hn::IsNaN(value)), hn::Or(raw, quiet), nearest);
#endif
}
HWY_INLINE void store(BFloat16* to, Floats value) {
  const hn::Rebind<std::uint16_t, F> half;
  for (int p = 0; p < kParts; ++p) {
    const auto bits = hn::ShiftRight<16>(rounded_bits(value.part[p]));
#if HWY_TARGET == HWY_AVX3
    const auto narrow = hn::TruncateTo(half, bits);  // one instruction; below AVX-512 the saturating one is
#else
    const auto narrow = hn::DemoteTo(half, hn::BitCast(I(), bits));
#endif
    hn::StoreU(narrow, half, reinterpret_cast<std::uint16_t*>(to) + p * kPart);
  }
}

template <class T>
HWY_INLINE Floats load(const T* from, All) {
  return load(from);
}
template <class T>
HWY_INLINE void store(T* to, Floats value, All) {
  store(to, value);
}
template <class T>
HWY_INLINE Floats load(const T* from, First lanes) {
  if (HWY_LIKELY(lanes.all())) return load(from);
  alignas(64) T room[kLanes] = {};
  if (lanes.count > 0) std::memcpy(room, from, static_cast<std::size_t>(lanes.count) * sizeof(T));
  return load(room);
}
template <class T>
HWY_INLINE void store(T* to, Floats value, First lanes) {
  if (HWY_LIKELY(lanes.all())) return store(to, value);
  alignas(64) T room[kLanes];
  store(room, value);
  if (lanes.count > 0) std::memcpy(to, room, static_cast<std::size_t>(lanes.count) * sizeof(T));
}

HWY_INLINE Ints load(const std::int32_t* from) {
  Ints r;
  for (int p = 0; p < kParts; ++p) r.part[p] = hn::LoadU(I(), from + p * kPart);
  return r;
}
HWY_INLINE void store(std::int32_t* to, Ints value) {
  for (int p = 0; p < kParts; ++p) hn::StoreU(value.part[p], I(), to + p * kPart);
}

/// What a store to this format and a load again give.
HWY_INLINE Floats rounded(const float*, Floats value) { return value; }
HWY_INLINE Floats rounded(const BFloat16*, Floats value) {
  for (int p = 0; p < kParts; ++p) {
    const auto upper = hn::And(rounded_bits(value.part[p]), hn::Set(U(), 0xFFFF0000u));
    value.part[p] = hn::BitCast(F(), upper);
  }
  return value;
}

HWY_INLINE Doubles no_doubles() {
  Doubles r;
  for (int p = 0; p < 2 * kParts; ++p) r.part[p] = hn::Zero(D());
  return r;
}
HWY_INLINE Doubles widened(Floats a) {
  const hn::Half<F> half;
  Doubles r;
  for (int p = 0; p < kParts; ++p) {
    r.part[2 * p] = hn::PromoteTo(D(), hn::LowerHalf(half, a.part[p]));
    r.part[2 * p + 1] = hn::PromoteTo(D(), hn::UpperHalf(half, a.part[p]));
  }
  return r;
}
HWY_INLINE Doubles operator+(Doubles a, Doubles b) {
  for (int p = 0; p < 2 * kParts; ++p) a.part[p] = hn::Add(a.part[p], b.part[p]);
  return a;
}
HWY_INLINE Doubles fma(Doubles a, Doubles b, Doubles c) {
  for (int p = 0; p < 2 * kParts; ++p) a.part[p] = hn::MulAdd(a.part[p], b.part[p], c.part[p]);
  return a;
}
HWY_INLINE void store(double* to, Doubles value) {
  for (int p = 0; p < 2 * kParts; ++p) hn::StoreU(value.part[p], D(), to + p * kPart / 2);
}

/// Halves combined with halves until one lane is left.
template <class Tag, class Combine>
HWY_INLINE hn::TFromD<Tag> halved([[maybe_unused]] Tag d, hn::Vec<Tag> value, Combine combine) {
  if constexpr (hn::MaxLanes(Tag()) > 4) {
    const hn::Half<Tag> half;
    return halved(half, combine(hn::LowerHalf(half, value), hn::UpperHalf(half, value)), combine);
  } else {
    const auto two = combine(value, hn::Shuffle1032(value));
    return hn::GetLane(combine(two, hn::Shuffle2301(two)));
  }
}
template <class Tag, class Value, class Combine>
HWY_INLINE hn::TFromD<Tag> across(Tag tag, Value value, Combine combine) {
  for (int n = kParts / 2; n > 0; n /= 2) {
    for (int p = 0; p < n; ++p) value.part[p] = combine(value.part[p], value.part[p + n]);
  }
  return halved(tag, value.part[0], combine);
}
struct Adding {
  template <class V>
  HWY_INLINE V operator()(V a, V b) const {
    return hn::Add(a, b);
  }
};
struct TakingGreater {
  template <class V>
  HWY_INLINE V operator()(V a, V b) const {
    return hn::Max(a, b);
  }
};
HWY_INLINE float sum(Floats value) { return across(F(), value, Adding()); }
/// The largest lane; none may be NaN.
HWY_INLINE float largest(Floats value) { return across(F(), value, TakingGreater()); }
HWY_INLINE std::int32_t largest(Ints value) { return across(I(), value, TakingGreater()); }

}  // namespace shoestring::HWY_NAMESPACE::lanes
HWY_AFTER_NAMESPACE();

#endif
