// One line of sixty-four columns at a time: load, amax, encode, count, transpose. Part of quantize_avx512.cpp, included
// after its target pragma like quantize_lanes_avx512.h.
#pragma once

#include <algorithm>
#include <cstdint>

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
  std::uint32_t amax = 0;

  void flush(QuantizeCounts* total) {
    if (!wanted) return;
    counts.amax = dtype_bits::to_float(amax);
    add(total, counts);
  }
};

/// One line of up to 64 columns.
struct Unit {
  __m512 x[4];
  __mmask64 keep;
  __mmask16 part(int v) const { return static_cast<__mmask16>(keep >> (16 * v)); }
};

__mmask64 keep_mask(std::int64_t count) {
  return count >= 64 ? ~std::uint64_t{0} : count <= 0 ? 0 : (std::uint64_t{1} << count) - 1;
}

template <class In>
Unit load_unit(const In* x, std::int64_t count) {
  Unit unit;
  unit.keep = keep_mask(count);
  if (count >= 64) {
    for (int v = 0; v < 4; ++v) unit.x[v] = lanes::load(x + 16 * v, 0xFFFF);
  } else {
    for (int v = 0; v < 4; ++v) unit.x[v] = lanes::load(x + 16 * v, unit.part(v));
  }
  return unit;
}

void count_zeros(const Unit& unit, __m512i codes, Tally& tally) {
  const __mmask64 zero_codes = _mm512_testn_epi8_mask(codes, _mm512_set1_epi8(0x7F)) & unit.keep;
  if (zero_codes == 0) return;
  __mmask64 zeros = 0;
  for (int v = 0; v < 4; ++v) {
    const __m512i bits = lanes::magnitude(unit.x[v]);
    zeros |= static_cast<__mmask64>(_mm512_testn_epi32_mask(bits, bits)) << (16 * v);
  }
  tally.counts.underflowed += __builtin_popcountll(zero_codes & ~zeros);
}

/// The codes of one unit; `plain` when every x is finite and the scales come from this x.
template <class Payload>
__m512i encode_unit(const Unit& unit, const __m512 inverse[4], bool plain, Tally& tally) {
  __m512i code[4];
  if (plain) [[likely]] {
    for (int v = 0; v < 4; ++v) code[v] = lanes::encode<Payload>(unit.x[v], lanes::magnitude(unit.x[v]), inverse[v]);
  } else {
    for (int v = 0; v < 4; ++v) {
      const __mmask16 keep = unit.part(v);
      code[v] = lanes::encode_saturating<Payload>(unit.x[v], inverse[v], keep, tally.counts.saturated);
      const __m512i bits = lanes::magnitude(unit.x[v]);
      const __m512i largest = _mm512_set1_epi32(static_cast<int>(kLargestFinite));
      tally.counts.non_finite +=
          __builtin_popcount(static_cast<unsigned>(_mm512_mask_cmpgt_epi32_mask(keep, bits, largest)));
    }
  }
  const __m512i codes = lanes::pack(code[0], code[1], code[2], code[3]);
  if (tally.wanted) count_zeros(unit, codes, tally);
  return codes;
}

/// Largest finite magnitude among vectors [first, last) of the two units of a tile; `plain` turns false if a value is
/// not finite.
std::uint32_t amax_of(const Unit units[2], int first, int last, bool& plain) {
  __m512i most = _mm512_setzero_si512();
  for (int v = first; v < last; ++v) most = _mm512_max_epi32(most, lanes::magnitude(units[v / 4].x[v % 4]));
  auto amax = static_cast<std::uint32_t>(_mm512_reduce_max_epi32(most));
  if (amax > kLargestFinite) [[unlikely]] {
    plain = false;
    most = _mm512_setzero_si512();
    for (int v = first; v < last; ++v) {
      most = _mm512_max_epi32(most, lanes::finite_magnitude(lanes::magnitude(units[v / 4].x[v % 4])));
    }
    amax = static_cast<std::uint32_t>(_mm512_reduce_max_epi32(most));
  }
  return amax;
}

/// Sixteen lines of sixteen bytes, transposed.
void transpose16(const std::uint8_t* from, std::int64_t from_stride, std::uint8_t* to, std::int64_t to_stride) {
  __m128i a[16];
  __m128i b[16];
  for (int i = 0; i < 16; ++i) a[i] = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i * from_stride));
  for (int round = 0; round < 4; ++round) {  // four perfect shuffles of the lines transpose them
    for (int i = 0; i < 8; ++i) {
      b[2 * i] = _mm_unpacklo_epi8(a[i], a[i + 8]);
      b[2 * i + 1] = _mm_unpackhi_epi8(a[i], a[i + 8]);
    }
    std::copy(b, b + 16, a);
  }
  for (int i = 0; i < 16; ++i) _mm_storeu_si128(reinterpret_cast<__m128i*>(to + i * to_stride), a[i]);
}

/// Writes lines of 64 codes as columns.
void store_transposed(const std::uint8_t (*codes)[64], std::int64_t rows, std::int64_t columns, std::uint8_t* out,
                      std::int64_t stride) {
  for (std::int64_t c = 0; c < columns; c += 16) {
    for (std::int64_t r = 0; r < rows; r += 16) {
      if (r + 16 <= rows && c + 16 <= columns) {
        transpose16(&codes[r][c], 64, out + c * stride + r, stride);
        continue;
      }
      for (std::int64_t i = c; i < std::min(c + 16, columns); ++i) {
        for (std::int64_t j = r; j < std::min(r + 16, rows); ++j) out[i * stride + j] = codes[j][i];
      }
    }
  }
}

}  // namespace
}  // namespace shoestring::quantization::avx512
