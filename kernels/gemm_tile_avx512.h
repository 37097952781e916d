// Inside of gemm, not for other code: a 16 x 16 tile of 32-bit elements in registers. Included behind
// `#pragma GCC target("avx512f")` and <immintrin.h>; the anonymous namespace keeps its AVX-512 code in that file.
#pragma once

namespace shoestring::gemm_detail {
namespace {

/// Sixteen vectors: the rows of one tile.
struct Tile {
  __m512i row[16];
};

/// The 16 x 16 transposition of 32-bit elements.
[[gnu::always_inline]] inline void transpose(Tile& t) {
  __m512i a[16];
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) {
    a[2 * i] = _mm512_unpacklo_epi32(t.row[2 * i], t.row[2 * i + 1]);
    a[2 * i + 1] = _mm512_unpackhi_epi32(t.row[2 * i], t.row[2 * i + 1]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    t.row[4 * i] = _mm512_unpacklo_epi64(a[4 * i], a[4 * i + 2]);
    t.row[4 * i + 1] = _mm512_unpackhi_epi64(a[4 * i], a[4 * i + 2]);
    t.row[4 * i + 2] = _mm512_unpacklo_epi64(a[4 * i + 1], a[4 * i + 3]);
    t.row[4 * i + 3] = _mm512_unpackhi_epi64(a[4 * i + 1], a[4 * i + 3]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    a[i] = _mm512_shuffle_i32x4(t.row[i], t.row[4 + i], 0x88);
    a[4 + i] = _mm512_shuffle_i32x4(t.row[i], t.row[4 + i], 0xDD);
    a[8 + i] = _mm512_shuffle_i32x4(t.row[8 + i], t.row[12 + i], 0x88);
    a[12 + i] = _mm512_shuffle_i32x4(t.row[8 + i], t.row[12 + i], 0xDD);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    t.row[i] = _mm512_shuffle_i32x4(a[i], a[8 + i], 0x88);
    t.row[8 + i] = _mm512_shuffle_i32x4(a[i], a[8 + i], 0xDD);
    t.row[4 + i] = _mm512_shuffle_i32x4(a[4 + i], a[12 + i], 0x88);
    t.row[12 + i] = _mm512_shuffle_i32x4(a[4 + i], a[12 + i], 0xDD);
  }
}

}  // namespace
}  // namespace shoestring::gemm_detail
