// One line of columns at a time: maxima of its tiles, its codes, what was lost, and codes turned into columns. Part of
// quantize_avx512.cpp and gemm_amx_quantize.cpp, included after their target pragma like quantize_lanes_avx512.h.
//
// Lines are padded with zeros to a multiple of 128 columns; only stores of codes know where a line really ends.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "kernels/quantize_lanes_avx512.h"
#include "kernels/quantize_variants.h"

namespace shoestring::quantization::avx512 {
namespace {

using lanes::Constants;
using quantize_tile::kLargestFinite;

constexpr std::int64_t kTile = 128;

/// Counts of one work item, in the form the lanes produce them.
struct Tally {
  bool wanted;
  QuantizeCounts counts;
  __m512i amax = _mm512_setzero_si512();  ///< magnitude bits, lane by lane

  void flush(QuantizeCounts* total) {
    if (!wanted) return;
    counts.amax = dtype_bits::to_float(_mm512_reduce_max_epu32(amax));
    add(total, counts);
  }
};

/// Tiles whose maxima are found together.
template <class In>
inline constexpr std::int64_t kGroup = std::is_same_v<In, float> ? 4 : 8;

/// Largest magnitude bits, lane by lane, of kWidth columns.
template <std::int64_t kWidth, bool kFiniteOnly>
__m512i most_of(const float* x) {
  __m512i most = _mm512_setzero_si512();
#pragma GCC unroll 8
  for (std::int64_t c = 0; c < kWidth; c += 16) {
    const __m512i bits = lanes::magnitude(_mm512_loadu_ps(x + c));
    most = _mm512_max_epi32(most, kFiniteOnly ? lanes::finite_magnitude(bits) : bits);
  }
  return most;
}
template <std::int64_t kWidth, bool kFiniteOnly>
__m512i most_of(const BFloat16* x) {  // thirty-two at a time: magnitudes of BF16 order as 16-bit integers
  __m512i most = lanes::magnitude16<kFiniteOnly>(_mm512_loadu_si512(x));
#pragma GCC unroll 3
  for (std::int64_t c = 32; c < kWidth; c += 32) {
    most = _mm512_max_epu16(most, lanes::magnitude16<kFiniteOnly>(_mm512_loadu_si512(x + c)));
  }
  return most;
}

/// Magnitude bits of the maxima of a group of tiles, in order.
template <std::int64_t kWidth, bool kFiniteOnly>
__m128i amax_of_group(const float* const* x) {
  __m512i m[4];
  for (int i = 0; i < 4; ++i) m[i] = most_of<kWidth, kFiniteOnly>(x[i]);
  const __m512i ab = _mm512_max_epi32(_mm512_unpacklo_epi32(m[0], m[1]), _mm512_unpackhi_epi32(m[0], m[1]));
  const __m512i cd = _mm512_max_epi32(_mm512_unpacklo_epi32(m[2], m[3]), _mm512_unpackhi_epi32(m[2], m[3]));
  const __m512i all = _mm512_max_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
  const __m256i half = _mm256_max_epi32(_mm512_castsi512_si256(all), _mm512_extracti64x4_epi64(all, 1));
  return _mm_max_epi32(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
}
template <std::int64_t kWidth, bool kFiniteOnly>
__m256i amax_of_group(const BFloat16* const* x) {
  __m512i two[4];
  for (int i = 0; i < 4; ++i) {
    const __m512i a = most_of<kWidth, kFiniteOnly>(x[2 * i]);
    const __m512i b = most_of<kWidth, kFiniteOnly>(x[2 * i + 1]);
    two[i] = _mm512_max_epu16(_mm512_unpacklo_epi16(a, b), _mm512_unpackhi_epi16(a, b));
  }
  const __m512i abcd = _mm512_max_epu16(_mm512_unpacklo_epi32(two[0], two[1]), _mm512_unpackhi_epi32(two[0], two[1]));
  const __m512i efgh = _mm512_max_epu16(_mm512_unpacklo_epi32(two[2], two[3]), _mm512_unpackhi_epi32(two[2], two[3]));
  const __m512i all = _mm512_max_epu16(_mm512_unpacklo_epi64(abcd, efgh), _mm512_unpackhi_epi64(abcd, efgh));
  const __m256i half = _mm256_max_epu16(_mm512_castsi512_si256(all), _mm512_extracti64x4_epi64(all, 1));
  const __m128i words = _mm_max_epu16(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
  return _mm256_slli_epi32(_mm256_cvtepu16_epi32(words), 16);
}

/// Magnitude bits of the maxima of `tiles` tiles of kWidth columns; amax has room for whole groups, and what stands
/// there behind the last tile is its maximum as well.
template <class In, std::int64_t kWidth, bool kFiniteOnly>
void amax_of_tiles(const In* x, std::int64_t tiles, std::uint32_t* amax) {
  for (std::int64_t tile = 0; tile < tiles; tile += kGroup<In>) {
    const In* group[kGroup<In>];
    for (std::int64_t i = 0; i < kGroup<In>; ++i) group[i] = x + std::min(tile + i, tiles - 1) * kWidth;
    const auto most = amax_of_group<kWidth, kFiniteOnly>(group);
    std::memcpy(amax + tile, &most, sizeof most);
  }
}

/// Which of sixty-four elements are zero.
inline __mmask64 zeros_of(const float* x) {
  __mmask64 zeros = 0;
  for (int v = 0; v < 4; ++v) {
    const __m512i bits = lanes::magnitude(_mm512_loadu_ps(x + 16 * v));
    zeros |= static_cast<__mmask64>(_mm512_testn_epi32_mask(bits, bits)) << (16 * v);
  }
  return zeros;
}
inline __mmask64 zeros_of(const BFloat16* x) {
  const __m512i magnitude = _mm512_set1_epi16(0x7FFF);
  const __mmask32 low = _mm512_testn_epi16_mask(_mm512_loadu_si512(x), magnitude);
  const __mmask32 high = _mm512_testn_epi16_mask(_mm512_loadu_si512(x + 32), magnitude);
  return static_cast<__mmask64>(high) << 32 | low;
}

/// Adds to the counts of sixty-four codes the elements that were not zero and became it.
template <class In>
[[gnu::always_inline]] inline void count_underflow(const In* x, __m512i codes, Tally& tally) {
  const __mmask64 zero_codes = _mm512_testn_epi8_mask(codes, _mm512_set1_epi8(0x7F));
  if (zero_codes == 0) return;
  tally.counts.underflowed += __builtin_popcountll(zero_codes & ~zeros_of(x));
}

inline std::int64_t count_non_finite(__m512 x) {
  const __m512i largest = _mm512_set1_epi32(static_cast<int>(kLargestFinite));
  return __builtin_popcount(static_cast<unsigned>(_mm512_cmpgt_epi32_mask(lanes::magnitude(x), largest)));
}

/// Codes of sixty-four columns of a line, see encode_line.
template <class In, class Payload, int kWidth, bool kPlain>
[[gnu::always_inline]] inline __m512i encode_unit(const In* x, const float* inverse, Tally& tally) {
  __m512 element[4];
  __m512i code[4];
  lanes::split(x, element);
#pragma GCC unroll 4
  for (int v = 0; v < 4; ++v) {
    const __m512 by = kWidth == 1    ? _mm512_loadu_ps(inverse + 16 * v)
                      : kWidth == 32 ? _mm512_set1_ps(inverse[v / 2])
                                     : _mm512_set1_ps(*inverse);
    if constexpr (kPlain) {
      code[v] = lanes::encode<Payload>(element[v], by);
    } else {
      code[v] = lanes::encode_saturating<Payload>(element[v], by, tally.counts.saturated);
      tally.counts.non_finite += count_non_finite(element[v]);
    }
  }
  return lanes::join(x, code);
}

/// Asks for `kCount` elements. What is read twice, for its maxima and for its codes, is best asked for while the codes
/// of the part before are made: it arrives meanwhile, and the maxima find it in L1. A guess where rows have gaps.
template <std::size_t kCount, class In>
[[gnu::always_inline]] inline void expect(const In* x) {
#pragma GCC unroll 8
  for (std::size_t line = 0; line < kCount * sizeof(In); line += 64) {
    _mm_prefetch(reinterpret_cast<const char*>(x) + line, _MM_HINT_T0);
  }
}
constexpr std::int64_t kFurther = 4 * kTile;  ///< past that part, so that those in front are asked for in time as well

/// Codes of a line. `inverse` has one element per kWidth columns, 1 included: those are in_split_order. kPlain: every x
/// is finite and covered by its scale. Lines of rows are read from memory, the next one behind this one.
template <class In, class Payload, int kWidth, bool kPlain, bool kCounted>
void encode_line(const In* x, std::int64_t count, const float* inverse, std::uint8_t* out, Tally& tally) {
  for (std::int64_t c = 0; c < count; c += 64) {
    if constexpr (kWidth >= 32) expect<64>(x + c + count + kFurther);
    const __m512i codes = encode_unit<In, Payload, kWidth, kPlain>(x + c, inverse + c / kWidth, tally);
    if constexpr (kCounted) count_underflow(x + c, codes, tally);
    if (count - c >= 64) [[likely]] {
      _mm512_storeu_si512(out + c, codes);
    } else {
      _mm512_mask_storeu_epi8(out + c, (std::uint64_t{1} << (count - c)) - 1, codes);
    }
  }
}

template <class In, class Payload, int kWidth>
void encode_line(bool plain, const In* x, std::int64_t count, const float* inverse, std::uint8_t* out, Tally& tally) {
  if (plain) [[likely]] {
    tally.wanted ? encode_line<In, Payload, kWidth, true, true>(x, count, inverse, out, tally)
                 : encode_line<In, Payload, kWidth, true, false>(x, count, inverse, out, tally);
  } else {
    tally.wanted ? encode_line<In, Payload, kWidth, false, true>(x, count, inverse, out, tally)
                 : encode_line<In, Payload, kWidth, false, false>(x, count, inverse, out, tally);
  }
}

/// Sixteen lines of sixteen bytes, transposed.
inline void transpose16(const std::uint8_t* from, std::int64_t from_stride, std::uint8_t* to, std::int64_t to_stride) {
  __m128i a[16];
  __m128i b[16];
  for (int i = 0; i < 16; ++i) a[i] = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i * from_stride));
  for (int round = 0; round < 4;
       ++round) {  // each perfect shuffle of the lines moves one bit of the address; four do it
    for (int i = 0; i < 8; ++i) {
      b[2 * i] = _mm_unpacklo_epi8(a[i], a[i + 8]);
      b[2 * i + 1] = _mm_unpackhi_epi8(a[i], a[i + 8]);
    }
    for (int i = 0; i < 16; ++i) a[i] = b[i];
  }
  for (int i = 0; i < 16; ++i) _mm_storeu_si128(reinterpret_cast<__m128i*>(to + i * to_stride), a[i]);
}

/// Writes `rows` lines of `columns` codes, `from_stride` apart, as columns of an output whose rows are contiguous.
inline void store_transposed(const std::uint8_t* codes, std::int64_t from_stride, std::int64_t rows,
                             std::int64_t columns, std::uint8_t* out, std::int64_t stride) {
  for (std::int64_t c = 0; c < columns; c += 16) {
    for (std::int64_t r = 0; r < rows; r += 16) {
      if (r + 16 <= rows && c + 16 <= columns) {
        transpose16(codes + r * from_stride + c, from_stride, out + c * stride + r, stride);
        continue;
      }
      for (std::int64_t i = c; i < std::min(c + 16, columns); ++i) {
        for (std::int64_t j = r; j < std::min(r + 16, rows); ++j) out[i * stride + j] = codes[j * from_stride + i];
      }
    }
  }
}

}  // namespace
}  // namespace shoestring::quantization::avx512
