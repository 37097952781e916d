// Packing that quantises: six rows at a time are rounded to the FP8 grid in registers, transposed, and stored as the
// numbers that their codes mean, so that the product is that of quantize and gemm, bit for bit (quantize_tile.h).
//
// Rounding needs no table: to |y| is added a power of two so large that the sum's last bit weighs what the small
// float's last bit weighs in y's binade, and taken away again (quantize_lanes_avx512.h says it at length).
#include <algorithm>
#include <array>

#include "kernels/gemm_avx2_pack.h"
#include "kernels/quantize_variants.h"

// GCC 12 takes the undefined source operand inside these intrinsics for a mistake of ours (its bug 105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#include <immintrin.h>

#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c,popcnt")

#include "kernels/gemm_lanes_avx2.h"

namespace shoestring::gemm_detail::avx2 {
namespace {

constexpr std::int64_t kTile = 128;  // elements of a row that share a scale
constexpr int kLeastFold = 127 - kFoldExponent;
constexpr int kMostFold = 127 + kFoldExponent;

template <class Payload>
struct Grid;
template <>
struct Grid<E4M3> {
  static constexpr int mantissa = 3;
  static constexpr int least_exponent = 127 - 6;  // biased as in a single
  static constexpr quantize_tile::Format format = quantize_tile::kE4M3;
};
template <>
struct Grid<E5M2> {
  static constexpr int mantissa = 2;
  static constexpr int least_exponent = 127 - 14;
  static constexpr quantize_tile::Format format = quantize_tile::kE5M2;
};

[[gnu::always_inline]] inline __m256 from_bits(std::uint32_t bits) {
  return _mm256_castsi256_ps(_mm256_set1_epi32(static_cast<int>(bits)));
}
[[gnu::always_inline]] inline __m256 magnitude(__m256 x) {
  return _mm256_and_ps(x, from_bits(quantize_tile::kMagnitude));
}

/// |y| on the payload's grid, for |y| that does not round past its largest finite value.
template <class Payload>
[[gnu::always_inline]] inline __m256 round_to_grid(__m256 y) {
  const __m256 least = from_bits(static_cast<std::uint32_t>(Grid<Payload>::least_exponent) << 23);
  const __m256 far = _mm256_set1_ps(static_cast<float>(1 << (23 - Grid<Payload>::mantissa)));
  const __m256 power = _mm256_and_ps(_mm256_max_ps(y, least), from_bits(0x7F800000u));
  return _mm256_fnmadd_ps(power, far, _mm256_fmadd_ps(power, far, y));
}

/// One tile of each of six rows.
template <class In>
struct SixTiles {
  std::array<const In*, kRows> x;
  std::int64_t columns;
  bool last;  ///< it ends its rows
  float* to;  ///< [columns][6]
  alignas(32) std::array<float, kLanes> scale;
  alignas(32) std::array<float, kLanes> inverse;
};

/// The magnitude bits of the largest of each row.
template <class In>
__m256i amax_of(const SixTiles<In>& six) {
  Tile most;
#pragma GCC unroll 8
  for (int r = 0; r < kLanes; ++r) most.row[r] = _mm256_setzero_ps();
  for (std::int64_t k = 0; k < six.columns; k += kLanes) {
#pragma GCC unroll 6
    for (int r = 0; r < kRows; ++r) {
      const __m256i bits = _mm256_castps_si256(magnitude(widen(six.x[static_cast<std::size_t>(r)] + k)));
      most.row[r] = _mm256_castsi256_ps(_mm256_max_epi32(_mm256_castps_si256(most.row[r]), bits));
    }
  }
  transpose(most);
  __m256i all = _mm256_castps_si256(most.row[0]);
  for (int i = 1; i < kLanes; ++i) all = _mm256_max_epi32(all, _mm256_castps_si256(most.row[i]));
  return all;
}

/// quantize_tile::scale_of for each lane of finite amax bits.
template <class Payload>
void scales_of(__m256i amax, ScaleKind kind, float* scale, float* inverse) {
  constexpr quantize_tile::Format kFormat = Grid<Payload>::format;
  const __m256 one = _mm256_set1_ps(1.0f);
  const __m256 zero = _mm256_castsi256_ps(_mm256_cmpeq_epi32(amax, _mm256_setzero_si256()));
  if (kind == ScaleKind::f32) {
    const __m256 quotient = _mm256_div_ps(_mm256_castsi256_ps(amax), _mm256_set1_ps(kFormat.max_finite));
    const __m256 s = _mm256_blendv_ps(_mm256_max_ps(quotient, _mm256_set1_ps(0x1p-126f)), one, zero);
    _mm256_store_ps(scale, s);
    _mm256_store_ps(inverse, _mm256_div_ps(one, s));
    return;
  }
  const __m256i raised = _mm256_srli_epi32(_mm256_add_epi32(amax, _mm256_set1_epi32(0x1FFFFF)), 23);
  const __m256i exponent =
      _mm256_max_epi32(_mm256_sub_epi32(raised, _mm256_set1_epi32(kFormat.max_exponent)), _mm256_set1_epi32(1));
  const __m256i opposite = _mm256_sub_epi32(_mm256_set1_epi32(254), exponent);
  _mm256_store_ps(scale, _mm256_blendv_ps(_mm256_castsi256_ps(_mm256_slli_epi32(exponent, 23)), one, zero));
  _mm256_store_ps(inverse, _mm256_blendv_ps(_mm256_castsi256_ps(_mm256_slli_epi32(opposite, 23)), one, zero));
}

/// Rounds a tile whose elements are finite. kFolded: times its scale again.
template <class In, class Payload, bool kFolded, bool kCounted>
void round_finite(const SixTiles<In>& six, QuantizeCounts& counts) {
  const __m256 sign = _mm256_set1_ps(-0.0f);
  for (std::int64_t k = 0; k < six.columns; k += kLanes) {
    Tile tile;
#pragma GCC unroll 6
    for (std::size_t r = 0; r < kRows; ++r) {
      const __m256 x = widen(six.x[r] + k);
      __m256 value = round_to_grid<Payload>(magnitude(_mm256_mul_ps(x, _mm256_broadcast_ss(&six.inverse[r]))));
      if constexpr (kCounted) {
        const __m256 lost = _mm256_and_ps(_mm256_cmp_ps(value, _mm256_setzero_ps(), _CMP_EQ_OQ),
                                          _mm256_cmp_ps(x, _mm256_setzero_ps(), _CMP_NEQ_OQ));
        counts.underflowed += __builtin_popcount(static_cast<unsigned>(_mm256_movemask_ps(lost)));
      }
      if constexpr (kFolded) value = _mm256_mul_ps(value, _mm256_broadcast_ss(&six.scale[r]));
      tile.row[r] = _mm256_or_ps(value, _mm256_and_ps(x, sign));
    }
    tile.row[6] = tile.row[7] = _mm256_setzero_ps();
    transpose(tile);
    store_columns<kRows>(tile, kLanes, kRows, six.last && k + kLanes == six.columns, six.to + k * kRows);
  }
}

/// The same for any elements, one by one; finds the scales as well.
template <class In, class Payload>
[[gnu::noinline]] void round_any(SixTiles<In>& six, ScaleKind kind, bool folded, QuantizeCounts& counts) {
  constexpr quantize_tile::Format kFormat = Grid<Payload>::format;
  for (std::size_t r = 0; r < kRows; ++r) {
    std::uint32_t amax = 0;
    for (std::int64_t k = 0; k < six.columns; ++k) {
      const float x{six.x[r][k]};
      if (quantize_tile::finite(x)) amax = std::max(amax, dtype_bits::of_float(x) & quantize_tile::kMagnitude);
    }
    const quantize_tile::Scale by = quantize_tile::scale_of(amax, kind, kFormat);
    six.scale[r] = by.scale;
    counts.amax = std::max(counts.amax, dtype_bits::to_float(amax));
    for (std::int64_t k = 0; k < six.columns; ++k) {
      const float x{six.x[r][k]};
      Payload code;
      code.bits = quantize_tile::encode<Payload>(x, by.inverse);
      six.to[k * kRows + static_cast<std::int64_t>(r)] = folded ? float{code} * by.scale : float{code};
      counts.saturated += quantize_tile::saturates(x, by.inverse, kFormat) ? 1 : 0;
      counts.underflowed += quantize_tile::underflows(x, by.inverse, kFormat) ? 1 : 0;
      counts.non_finite += quantize_tile::finite(x) ? 0 : 1;
    }
  }
}

template <class In, class Payload, bool kFolded, bool kCounted>
void round_six(SixTiles<In>& six, const RowCast& cast, QuantizeCounts& counts) {
  const __m256i amax = amax_of(six);
  const __m256i largest = _mm256_set1_epi32(static_cast<int>(quantize_tile::kLargestFinite));
  const __m256i beyond = _mm256_cmpgt_epi32(amax, largest);
  if (!_mm256_testz_si256(beyond, beyond)) [[unlikely]] {
    round_any<In, Payload>(six, cast.kind, kFolded, counts);
  } else {
    scales_of<Payload>(amax, cast.kind, six.scale.data(), six.inverse.data());
    round_finite<In, Payload, kFolded, kCounted>(six, counts);
    if constexpr (kCounted) {
      alignas(32) std::array<float, kLanes> most;
      _mm256_store_ps(most.data(), _mm256_castsi256_ps(amax));
      counts.amax = std::max(counts.amax, *std::max_element(most.begin(), most.end()));
    }
  }
  if constexpr (kFolded) {
    const bool outside = std::any_of(six.scale.begin(), six.scale.begin() + kRows, [](float scale) {
      const auto exponent = static_cast<int>(dtype_bits::of_float(scale) >> 23);
      return exponent < kLeastFold || exponent > kMostFold;
    });
    if (outside) [[unlikely]]
      cast.unfoldable->store(true, std::memory_order_relaxed);
  }
}

template <class In, class Payload, bool kFolded, bool kCounted>
void round_rows(const Operand& a, const RowCast& cast, const RowsOfBlock& rows) {
  static constexpr std::array<In, kTile> kZeros{};  // what rows of a block past the last one are
  const std::int64_t tiles = divide_up(a.k, kTile);
  QuantizeCounts counts;
  counts.elements = rows.count * a.k;
  SixTiles<In> six;
  for (std::int64_t row = 0; row < rows.count; row += kRows) {
    for (std::int64_t tile = 0; tile < tiles; ++tile) {
      for (std::int64_t r = 0; r < kRows; ++r) {
        const In* x = static_cast<const In*>(a.values) + (rows.begin + row + r) * a.row_stride + tile * kTile;
        six.x[static_cast<std::size_t>(r)] = row + r < rows.count ? x : kZeros.data();
      }
      six.columns = std::min(kTile, a.k - tile * kTile);
      six.last = tile + 1 == tiles;
      six.to = static_cast<float*>(rows.to) + (row * a.k + tile * kTile * kRows);
      round_six<In, Payload, kFolded, kCounted>(six, cast, counts);
      if constexpr (!kFolded) std::copy_n(six.scale.begin(), kRows, rows.scales + (row / kRows * tiles + tile) * kRows);
    }
  }
  if constexpr (kCounted) quantization::add(cast.counts, counts);
}

template <class In, class Payload>
void round_rows_as(const Operand& a, const RowCast& cast, const RowsOfBlock& rows) {
  const bool counted = rows.counted && cast.counts != nullptr;
  if (cast.kind == ScaleKind::f32) {
    counted ? round_rows<In, Payload, false, true>(a, cast, rows)
            : round_rows<In, Payload, false, false>(a, cast, rows);
  } else {
    counted ? round_rows<In, Payload, true, true>(a, cast, rows) : round_rows<In, Payload, true, false>(a, cast, rows);
  }
}

}  // namespace

void quantize_rows(const Operand& a, const RowCast& cast, const RowsOfBlock& rows) {
  if (a.dtype == DType::f32) {
    cast.values == DType::e4m3 ? round_rows_as<float, E4M3>(a, cast, rows) : round_rows_as<float, E5M2>(a, cast, rows);
  } else {
    cast.values == DType::e4m3 ? round_rows_as<BFloat16, E4M3>(a, cast, rows)
                               : round_rows_as<BFloat16, E5M2>(a, cast, rows);
  }
}

}  // namespace shoestring::gemm_detail::avx2
#pragma GCC pop_options
