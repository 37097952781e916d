// Left tiles from plain numbers: what quantize would write as 8-bit codes and pack_rows decode again is rounded to that
// format's grid in registers and stored as BF16, which holds it exactly. The arithmetic is that of
// quantize_lanes_avx512.h, so that nothing differs from quantising first.
//
// Rounding y to the grid: with p the power of two of y's binade (the least normal one at least) and y's sign, the last
// bit of y + p * 2^(23 - mantissa) weighs what the grid's last bit weighs there; the difference is y rounded, exactly.
// BF16 under power-of-two scales needs no product at all: its own bits are rounded, as integers.
#include <algorithm>
#include <array>
#include <bit>
#include <type_traits>

#include "kernels/gemm_amx_pack.h"
#include "kernels/quantize_variants.h"

// GCC 12 takes the undefined source operand inside these intrinsics for a mistake of ours (its bug 105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#include <immintrin.h>

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq")

#include "kernels/quantize_unit_avx512.h"

namespace shoestring::gemm_detail::amx {
namespace {

using quantization::avx512::expect;
using quantization::avx512::kFurther;
using quantization::avx512::Tally;
using quantization::lanes::Constants;
namespace lanes = quantization::lanes;

constexpr std::int64_t kTile = 128;        // elements of a row that share a scale
constexpr std::int64_t kStep = 32;         // of k in one AMX tile
constexpr std::int64_t kStepBytes = 2048;  // from one step of k to the next
constexpr std::size_t kTogether = 16;      // tiles whose scales are computed at once
constexpr std::uint32_t kUpperHalf = 0xFFFF0000u;
constexpr int kLeastFold = 127 - kFoldExponent;
constexpr int kMostFold = 127 + kFoldExponent;

/// What one tile of the operand is multiplied by, on its way in and back.
struct Factors {
  float scale;
  float inverse;
};

/// Thirty-two elements in two vectors and, of results that are BF16, in the same order, those in order of columns.
struct Pairs {
  __m512 first;
  __m512 second;
};
[[gnu::always_inline]] inline Pairs load(const float* x) { return {_mm512_loadu_ps(x), _mm512_loadu_ps(x + 16)}; }
[[gnu::always_inline]] inline Pairs load(const BFloat16* x) {  // even and odd elements
  const __m512i both = _mm512_loadu_si512(x);
  return {_mm512_castsi512_ps(_mm512_slli_epi32(both, 16)),
          _mm512_castsi512_ps(_mm512_and_si512(both, _mm512_set1_epi32(static_cast<int>(kUpperHalf))))};
}
[[gnu::always_inline]] inline __m512i join(const float*, Pairs r) {
  const __m512i odd = _mm512_set_epi16(63, 61, 59, 57, 55, 53, 51, 49, 47, 45, 43, 41, 39, 37, 35, 33, 31, 29, 27, 25,
                                       23, 21, 19, 17, 15, 13, 11, 9, 7, 5, 3, 1);
  return _mm512_permutex2var_epi16(_mm512_castps_si512(r.first), odd, _mm512_castps_si512(r.second));
}
[[gnu::always_inline]] inline __m512i join(const BFloat16*, Pairs r) {
  return _mm512_or_si512(_mm512_srli_epi32(_mm512_castps_si512(r.first), 16), _mm512_castps_si512(r.second));
}

/// Thirty-two elements as words that begin with their signs.
[[gnu::always_inline]] inline __m512i words(const float* x) { return join(x, load(x)); }
[[gnu::always_inline]] inline __m512i words(const BFloat16* x) { return _mm512_loadu_si512(x); }

/// y on the payload's grid; |y| must not round past its largest finite value. Zeros lose their sign, which no sum of
/// products can tell.
template <class Payload>
[[gnu::always_inline]] inline __m512 round_to_grid(__m512 y) {
  const __m512 least = _mm512_castsi512_ps(_mm512_set1_epi32(Constants<Payload>::least_exponent << 23));
  const __m512 far = _mm512_set1_ps(static_cast<float>(1 << (23 - Constants<Payload>::mantissa)));
  const __m512 power = _mm512_castsi512_ps(_mm512_and_si512(_mm512_castps_si512(cleared::larger_magnitude(y, least)),
                                                            _mm512_set1_epi32(static_cast<int>(0xFF800000u))));
  return _mm512_fnmadd_ps(power, far, _mm512_fmadd_ps(power, far, y));
}

/// The magnitude of the same for any y: saturates, keeps NaN.
template <class Payload>
__m512 round_saturating(__m512 x, Factors by, Tally& tally) {
  using C = Constants<Payload>;
  const __m512i bits = lanes::magnitude(_mm512_mul_ps(x, _mm512_set1_ps(by.inverse)));
  const __mmask16 nan = _mm512_cmpgt_epi32_mask(bits, _mm512_set1_epi32(0x7F800000));
  const __mmask16 over = _mm512_cmpge_epi32_mask(bits, _mm512_set1_epi32(static_cast<int>(C::format.saturates_from)));
  tally.counts.saturated += __builtin_popcount(static_cast<unsigned>(over & ~nan));
  tally.counts.non_finite += quantization::avx512::count_non_finite(x);
  const __m512 bounded = _mm512_min_ps(_mm512_castsi512_ps(bits), _mm512_set1_ps(C::format.max_finite));
  const __m512 value = _mm512_mul_ps(round_to_grid<Payload>(bounded), _mm512_set1_ps(by.scale));
  return _mm512_mask_mov_ps(value, nan, _mm512_castsi512_ps(_mm512_set1_epi32(0x7FC00000)));
}

/// Thirty-two elements on the grid of their tile. kFolded: times its scale again.
template <class In, class Payload, bool kFolded, bool kPlain>
[[gnu::always_inline]] inline __m512i round_step(const In* x, Factors by, Tally& tally) {
  Pairs r = load(x);
  if constexpr (kPlain) {
    const __m512 inverse = _mm512_set1_ps(by.inverse);
    r = {round_to_grid<Payload>(_mm512_mul_ps(r.first, inverse)),
         round_to_grid<Payload>(_mm512_mul_ps(r.second, inverse))};
    if constexpr (kFolded) {
      const __m512 scale = _mm512_set1_ps(by.scale);
      r = {_mm512_mul_ps(r.first, scale), _mm512_mul_ps(r.second, scale)};
    }
  } else {
    const Factors used{kFolded ? by.scale : 1.0f, by.inverse};
    r = {round_saturating<Payload>(r.first, used, tally), round_saturating<Payload>(r.second, used, tally)};
  }
  __m512i values = join(x, r);
  if constexpr (!kPlain) {
    constexpr int kFirstSelects = 0xCA;
    values = _mm512_ternarylogic_epi32(_mm512_set1_epi16(0x7FFF), values, words(x), kFirstSelects);
  }
  return values;
}

/// A constant for lanes of 16 bits; one of 32 bits is read from memory for nothing, where one of 16 takes a port.
[[gnu::always_inline]] inline __m512i both_halves(unsigned word) {
  return _mm512_set1_epi32(static_cast<int>(word << 16 | word));
}

/// The bits of thirty-two finite BF16 that their power-of-two scale covers, rounded to the grid where that has all its
/// bits.
template <class Payload>
[[gnu::always_inline]] inline __m512i round_bits(const BFloat16* x) {
  constexpr int kDrop = 7 - Constants<Payload>::mantissa;
  const __m512i bits = _mm512_loadu_si512(x);
  const __mmask32 odd = _mm512_test_epi16_mask(bits, both_halves(1 << kDrop));
  const __m512i sum = _mm512_add_epi16(bits, both_halves((1 << (kDrop - 1)) - 1));
  const __m512i up = _mm512_mask_add_epi16(sum, odd, sum, both_halves(1));
  return _mm512_and_si512(up, both_halves(0x10000 - (1 << kDrop)));
}

/// Adds the elements that were not zero and became it.
template <class In>
[[gnu::noinline]] void count_underflow(const In* x, const std::byte* values, int steps, Tally& tally) {
  for (int step = 0; step < steps; ++step, x += kStep, values += kStepBytes) {
    const __mmask32 zeros = _mm512_testn_epi16_mask(_mm512_load_si512(values), both_halves(0x7FFF));
    const Pairs given = load(x);
    const auto zero = [](__m512 v) {
      return __builtin_popcount(_mm512_cmpeq_epi32_mask(lanes::magnitude(v), _mm512_setzero_si512()));
    };
    tally.counts.underflowed += __builtin_popcount(zeros) - zero(given.first) - zero(given.second);
  }
}

/// kSteps x 32 elements of one tile into a line of each of so many steps of k.
template <class In, class Payload, bool kFolded, bool kPlain, int kSteps>
[[gnu::always_inline]] inline void round_steps(const In* x, Factors by, std::byte* to, Tally& tally) {
  if constexpr (kFolded && kPlain && std::is_same_v<In, BFloat16>) {
    const int least =
        (static_cast<int>(std::bit_cast<std::uint32_t>(by.scale) >> 23) + Constants<Payload>::least_exponent - 127)
        << 7;
    __m512i smallest = both_halves(0xFFFF);
#pragma GCC unroll 4
    for (int step = 0; step < kSteps; ++step) {
      const __m512i bits = round_bits<Payload>(x + step * kStep);
      _mm512_store_si512(to + step * kStepBytes, bits);
      smallest = _mm512_min_epu16(smallest, _mm512_and_si512(bits, both_halves(0x7FFF)));
    }
    if (_mm512_cmplt_epu16_mask(smallest, both_halves(static_cast<unsigned>(least))) == 0) [[likely]]
      return;
  }
  __mmask32 zeros = 0;
#pragma GCC unroll 4
  for (int step = 0; step < kSteps; ++step) {
    const __m512i values = round_step<In, Payload, kFolded, kPlain>(x + step * kStep, by, tally);
    _mm512_store_si512(to + step * kStepBytes, values);
    zeros |= _mm512_testn_epi16_mask(values, both_halves(0x7FFF));
  }
  if (zeros != 0 && tally.wanted) [[unlikely]]
    count_underflow(x, to, kSteps, tally);
}

/// A tile that ends early.
template <class In, class Payload, bool kFolded, bool kPlain>
[[gnu::noinline]] void round_part(const In* x, int steps, Factors by, std::byte* to, Tally& tally) {
  for (int step = 0; step < steps; ++step) {
    round_steps<In, Payload, kFolded, kPlain, 1>(x + step * kStep, by, to + step * kStepBytes, tally);
  }
}

/// Up to sixteen tiles of one or more rows that are quantised together.
template <class In>
struct Batch {
  std::size_t tiles = 0;
  bool plain = true;  ///< all of them finite
  std::array<const In*, kTogether> x;
  std::array<int, kTogether> steps;
  std::array<std::byte*, kTogether> to;
  std::array<float*, kTogether> row_scale;  ///< where row scales are wanted
  alignas(64) std::array<float, kTogether> scale;
  alignas(64) std::array<float, kTogether> inverse;
  std::array<std::array<In, kTile>, kTogether> rooms;

  /// What of x there is, and zeros: the maximum is that of a whole tile.
  const In* padded(const In* part, std::int64_t count) {
    In* room = rooms[tiles].data();
    std::copy_n(part, count, room);
    std::fill(room + count, room + kTile, In{});
    return room;
  }

  template <bool kFiniteOnly>
  __m512i amax() const {
    using quantization::avx512::amax_of_group;
    if constexpr (std::is_same_v<In, float>) {
      const __m128i a = amax_of_group<kTile, kFiniteOnly>(&x[0]);
      const __m128i b = amax_of_group<kTile, kFiniteOnly>(&x[4]);
      const __m128i c = amax_of_group<kTile, kFiniteOnly>(&x[8]);
      const __m128i d = amax_of_group<kTile, kFiniteOnly>(&x[12]);
      return _mm512_inserti64x4(_mm512_castsi256_si512(_mm256_set_m128i(b, a)), _mm256_set_m128i(d, c), 1);
    } else {
      const __m256i low = amax_of_group<kTile, kFiniteOnly>(&x[0]);
      const __m256i high = amax_of_group<kTile, kFiniteOnly>(&x[8]);
      return _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
    }
  }
};

/// Finds the scales of a batch.
template <class In, class Payload, bool kFolded>
void scale_batch(Batch<In>& batch, const RowCast& cast, Tally& tally) {
  std::fill(batch.x.begin() + batch.tiles, batch.x.end(), batch.x[0]);
  __m512i amax = batch.template amax<false>();
  const __m512i largest = _mm512_set1_epi32(static_cast<int>(quantize_tile::kLargestFinite));
  batch.plain = _mm512_cmpgt_epu32_mask(amax, largest) == 0;
  if (!batch.plain) [[unlikely]]
    amax = batch.template amax<true>();
  tally.amax = _mm512_max_epu32(tally.amax, amax);
  __m512 scale;
  __m512 inverse;
  lanes::scales_of<Payload>(amax, cast.kind, scale, inverse);
  if constexpr (kFolded) {
    const __m512i exponent = _mm512_srli_epi32(_mm512_castps_si512(scale), 23);
    const __mmask16 outside = _mm512_cmplt_epi32_mask(exponent, _mm512_set1_epi32(kLeastFold)) |
                              _mm512_cmpgt_epi32_mask(exponent, _mm512_set1_epi32(kMostFold));
    if (outside != 0) [[unlikely]]
      cast.unfoldable->store(true, std::memory_order_relaxed);
  }
  _mm512_store_ps(batch.scale.data(), scale);
  _mm512_store_ps(batch.inverse.data(), inverse);
}

template <class In, class Payload, bool kFolded, bool kPlain>
void round_tiles(const Batch<In>& batch, Tally& tally) {
  for (std::size_t i = 0; i < batch.tiles; ++i) {
    expect<kTile>(batch.x[i] + kTogether * kTile + kFurther);
    const Factors by{batch.scale[i], batch.inverse[i]};
    if constexpr (!kFolded) *batch.row_scale[i] = by.scale;
    if (batch.steps[i] == kTile / kStep) [[likely]] {
      round_steps<In, Payload, kFolded, kPlain, kTile / kStep>(batch.x[i], by, batch.to[i], tally);
    } else {
      round_part<In, Payload, kFolded, kPlain>(batch.x[i], batch.steps[i], by, batch.to[i], tally);
    }
  }
}

/// Writes a batch and empties it.
template <class In, class Payload, bool kFolded>
void round_batch(Batch<In>& batch, const RowCast& cast, Tally& tally) {
  scale_batch<In, Payload, kFolded>(batch, cast, tally);
  batch.plain ? round_tiles<In, Payload, kFolded, true>(batch, tally)
              : round_tiles<In, Payload, kFolded, false>(batch, tally);
  batch.tiles = 0;
}

template <class In, class Payload, bool kFolded>
void round_rows(const Operand& a, const RowCast& cast, const RowsOfBlock& rows, Tally& tally) {
  const std::int64_t steps = a.k / kStep;
  const std::int64_t tiles = divide_up(a.k, kTile);
  Batch<In> batch;
  for (std::int64_t r = 0; r < rows.count; ++r) {
    const In* x = static_cast<const In*>(a.values) + (rows.begin + r) * a.row_stride;
    std::byte* line = static_cast<std::byte*>(rows.to) + r / 32 * steps * kStepBytes + r % 32 * 64;
    for (std::int64_t tile = 0; tile < tiles; ++tile) {
      const std::size_t at = batch.tiles;
      const std::int64_t length = std::min(kTile, a.k - tile * kTile);
      batch.x[at] = length == kTile ? x + tile * kTile : batch.padded(x + tile * kTile, length);
      batch.steps[at] = static_cast<int>(length / kStep);
      batch.to[at] = line + tile * (kTile / kStep) * kStepBytes;
      if constexpr (!kFolded) batch.row_scale[at] = rows.scales + (r / 32 * tiles + tile) * 32 + r % 32;
      if (++batch.tiles < kTogether) continue;
      round_batch<In, Payload, kFolded>(batch, cast, tally);
    }
  }
  if (batch.tiles > 0) round_batch<In, Payload, kFolded>(batch, cast, tally);
  for (std::int64_t r = rows.count; r % 16 != 0; ++r) {  // the tile's other rows are multiplied too
    std::byte* line = static_cast<std::byte*>(rows.to) + r / 32 * steps * kStepBytes + r % 32 * 64;
    for (std::int64_t step = 0; step < steps; ++step) {
      _mm512_store_si512(line + step * kStepBytes, _mm512_setzero_si512());
    }
  }
}

template <class In, class Payload>
void round_rows_as(const Operand& a, const RowCast& cast, const RowsOfBlock& rows, Tally& tally) {
  cast.kind == ScaleKind::f32 ? round_rows<In, Payload, false>(a, cast, rows, tally)
                              : round_rows<In, Payload, true>(a, cast, rows, tally);
}

}  // namespace

void quantize_rows(const Operand& a, const RowCast& cast, const RowsOfBlock& rows) {
  Tally tally{rows.counted && cast.counts != nullptr, {}};
  if (a.dtype == DType::f32) {
    cast.values == DType::e4m3 ? round_rows_as<float, E4M3>(a, cast, rows, tally)
                               : round_rows_as<float, E5M2>(a, cast, rows, tally);
  } else {
    cast.values == DType::e4m3 ? round_rows_as<BFloat16, E4M3>(a, cast, rows, tally)
                               : round_rows_as<BFloat16, E5M2>(a, cast, rows, tally);
  }
  tally.counts.elements = rows.count * a.k;
  tally.flush(cast.counts);
}

}  // namespace shoestring::gemm_detail::amx

#pragma GCC pop_options
