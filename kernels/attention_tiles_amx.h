// Tiles of bf16 for attention on AMX: layouts, packing, and the one product. For its variants only.
//
// TDPBF16PS adds to C [16][16] f32 the product of A [16 rows][32 k] and B [16 pairs of k][16 columns][2]. A tile is
// 16 rows of 64 bytes. Operands are packed so that every B tile, and every A tile that is not a plain slice of rows,
// is 1,024 bytes in a row:
//   columns  B from rows that become columns: pair r of column n = elements (2r, 2r+1) of row n
//   pairs    B whose k runs over rows: pair r of column n = elements n of rows (r, r + 16)
//   turned   A whose k runs over rows: row m, element r = element m of row r
#pragma once

#include <immintrin.h>

#include <algorithm>
#include <cstdint>

#include "kernels/amx_tiles.h"
#include "kernels/attention_blocks_amx.h"
#include "kernels/attention_variants.h"

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,amx-tile,amx-bf16")

namespace shoestring::attention::tiles {

inline constexpr std::int64_t kTile = 512;  ///< bf16 elements of a tile

/// Tile state of this thread while it lives.
class Session {
 public:
  Session() { asm volatile("ldtilecfg %0" ::"m"(shoestring::amx::g_tile_config)); }
  ~Session() { asm volatile("tilerelease"); }
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;
};

/// Left operand of a product: 32 rows, `steps` times 32 k.
struct Left {
  const BFloat16* data;
  std::int64_t row_bytes;  ///< between rows of a tile
  std::int64_t next;       ///< elements from the first 16 rows to the second
  std::int64_t step;       ///< elements from one k tile to the next
};

/// Right operand: 32 columns.
struct Right {
  const BFloat16* data;
  std::int64_t next;  ///< elements from the first 16 columns to the second
  std::int64_t step;
};

/// c[32][32] (= | +=) a b. Tile loads do not tell the compiler what they read, hence the barrier.
template <bool accumulate>
__attribute__((always_inline)) inline void product(float* c, std::int64_t c_row, const Left& a, const Right& b,
                                                   std::int64_t steps) {
  const std::int64_t row = c_row * 4;
  asm volatile("" ::: "memory");
  if constexpr (accumulate) {
    _tile_loadd(0, c, row);
    _tile_loadd(1, c + 16, row);
    _tile_loadd(2, c + 16 * c_row, row);
    _tile_loadd(3, c + 16 * c_row + 16, row);
  } else {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  }
  for (std::int64_t i = 0; i < steps; ++i) {
    _tile_loadd(6, b.data + i * b.step, 64);
    _tile_loadd(4, a.data + i * a.step, a.row_bytes);
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(7, b.data + b.next + i * b.step, 64);
    _tile_dpbf16ps(1, 4, 7);
    _tile_loadd(5, a.data + a.next + i * a.step, a.row_bytes);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
  _tile_stored(0, c, row);
  _tile_stored(1, c + 16, row);
  _tile_stored(2, c + 16 * c_row, row);
  _tile_stored(3, c + 16 * c_row + 16, row);
}

/// Rows of one head of a document, [tokens, dims], as packing reads them: zero past either end.
struct Rows {
  const BFloat16* data;
  std::int64_t stride;
  std::int64_t tokens;
  std::int64_t dims;

  __attribute__((always_inline)) __m512i load32(std::int64_t token, std::int64_t dim) const {
    const std::int64_t count = token < tokens ? std::clamp<std::int64_t>(dims - dim, 0, 32) : 0;
    const auto mask = static_cast<__mmask32>((std::uint64_t{1} << count) - 1u);
    return _mm512_maskz_loadu_epi16(mask, data + token * stride + dim);
  }

  /// Asks for a row long before it is read: rows lie farther apart than the processor's own prefetch looks.
  __attribute__((always_inline)) void prefetch(std::int64_t token) const {
    if (token >= tokens) return;
    for (std::int64_t dim = 0; dim < dims; dim += 32) {
      _mm_prefetch(reinterpret_cast<const char*>(data + token * stride + dim), _MM_HINT_T0);
    }
  }
};

inline constexpr std::int64_t kAhead = 32;  ///< rows between a prefetch and the read

inline Rows rows_of(const ConstTensorView& view, const Document& document, std::int64_t head) {
  return {view.as<BFloat16>() + document.begin * view.strides[0] + head * view.strides[1], view.strides[0],
          document.tokens(), view.shape[2]};
}

/// to[padded][columns]: plain rows, for A operands whose k runs over dims.
static inline void pack_rows(BFloat16* to, const Rows& from, std::int64_t padded, std::int64_t columns) {
  for (std::int64_t i = 0; i < padded; ++i) {
    from.prefetch(i + kAhead);
    for (std::int64_t j = 0; j < columns; j += 32) _mm512_storeu_si512(to + i * columns + j, from.load32(i, j));
  }
}

/// `columns` tiles of rows [first, first + count): to[count / 16][dims / 32][tile].
static inline void pack_columns(BFloat16* to, const Rows& from, std::int64_t first, std::int64_t count,
                                std::int64_t dims) {
  for (std::int64_t i = 0; i < count; i += 16) {
    for (std::int64_t r = 0; r < 16; ++r) from.prefetch(first + i + r + kAhead);
    for (std::int64_t j = 0; j < dims; j += 32) {
      __m512i square[16];
      for (int r = 0; r < 16; ++r) square[r] = from.load32(first + i + r, j);
      blocks::transpose16(square);
      for (int r = 0; r < 16; ++r) _mm512_storeu_si512(to + 32 * r, square[r]);
      to += kTile;
    }
  }
}

/// Elements of `low` below, of `high` above, in 32-bit lanes: elements [0, 16) in `first`, the others in `second`.
struct Interleaved {
  __m512i first;
  __m512i second;
};
__attribute__((always_inline)) inline Interleaved interleave(__m512i low, __m512i high) {
  const __m512i low_first = _mm512_cvtepu16_epi32(_mm512_castsi512_si256(low));
  const __m512i low_second = _mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(low, 1));
  const __m512i high_first = _mm512_cvtepu16_epi32(_mm512_castsi512_si256(high));
  const __m512i high_second = _mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(high, 1));
  return {_mm512_or_si512(low_first, _mm512_slli_epi32(high_first, 16)),
          _mm512_or_si512(low_second, _mm512_slli_epi32(high_second, 16))};
}

/// `pairs` tiles of all rows: to[padded / 32][dims / 16][tile].
static inline void pack_pairs(BFloat16* to, const Rows& from, std::int64_t padded, std::int64_t dims) {
  for (std::int64_t i = 0; i < padded; i += 32) {
    for (std::int64_t r = 0; r < 32; ++r) from.prefetch(i + r + kAhead);
    for (std::int64_t j = 0; j < dims; j += 32) {
      BFloat16* tile = to + (i / 32 * (dims / 16) + j / 16) * kTile;
      for (std::int64_t r = 0; r < 16; ++r) {
        const Interleaved both = interleave(from.load32(i + r, j), from.load32(i + r + 16, j));
        _mm512_storeu_si512(tile + 32 * r, both.first);
        _mm512_storeu_si512(tile + kTile + 32 * r, both.second);
      }
    }
  }
}

/// `turned` tiles of all rows: to[dims / 16][padded / 32][tile].
static inline void pack_turned(BFloat16* to, const Rows& from, std::int64_t padded, std::int64_t dims) {
  for (std::int64_t i = 0; i < padded; i += 32) {
    for (std::int64_t r = 0; r < 32; ++r) from.prefetch(i + r + kAhead);
    for (std::int64_t j = 0; j < dims; j += 32) {
      __m512i square[2][16];
      for (int r = 0; r < 16; ++r) {
        const Interleaved both = interleave(from.load32(i + 2 * r, j), from.load32(i + 2 * r + 1, j));
        square[0][r] = both.first;
        square[1][r] = both.second;
      }
      for (int half = 0; half < 2; ++half) {
        blocks::transpose16(square[half]);
        BFloat16* tile = to + ((j / 16 + half) * (padded / 32) + i / 32) * kTile;
        for (int r = 0; r < 16; ++r) _mm512_storeu_si512(tile + 32 * r, square[half][r]);
      }
    }
  }
}

/// Halfway to the next bf16, so that the upper 16 bits are the nearest one (ties away from zero: what stays inside an
/// op need not match BFloat16(float)).
__attribute__((always_inline)) inline __m512i half_up(__m512 value) {
  return _mm512_add_epi32(_mm512_castps_si512(value), _mm512_set1_epi32(0x8000));
}
/// The upper halves of `low` and `high` as one pair per lane.
__attribute__((always_inline)) inline __m512i pair(__m512i low, __m512i high) {
  const __m512i upper = _mm512_set1_epi32(-65536);  // (upper & high) | (~upper & low >> 16)
  return _mm512_ternarylogic_epi32(upper, high, _mm512_srli_epi32(low, 16), 0xCA);
}

}  // namespace shoestring::attention::tiles

#pragma GCC pop_options
