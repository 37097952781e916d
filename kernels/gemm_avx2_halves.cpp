// BF16 operands into BF16 panels: [panel][k][2][8] pairs of columns that stand eight apart. Where k is contiguous,
// eight pairs of rows are transposed in registers as 8 x 8 lanes of one pair each; where rows are, they are joined as
// they stand.
#include <algorithm>

#include "kernels/gemm_avx2_pack.h"

// GCC 12 takes the undefined source operand inside these intrinsics for a mistake of ours (its bug 105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#include <immintrin.h>

#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")

#include "kernels/gemm_lanes_avx2.h"

namespace shoestring::gemm_detail::avx2 {
namespace {

constexpr std::int64_t kDeep = 32;  // of k at a time
constexpr std::int64_t kPairs = kPanel / 2;

/// Eight elements of an operand from (row, k) on, in the direction of `stride`; zeros behind the first `present`.
[[gnu::always_inline]] inline __m128i eight(const Operand& b, std::int64_t row, std::int64_t k, std::int64_t stride,
                                            std::int64_t present) {
  const BFloat16* x = static_cast<const BFloat16*>(b.values) + row * b.row_stride + k * b.k_stride;
  if (stride == 1 && present >= kLanes) [[likely]] {
    return _mm_loadu_si128(reinterpret_cast<const __m128i*>(x));
  }
  BFloat16 some[kLanes] = {};
  for (std::int64_t i = 0; i < std::min(present, kLanes); ++i) some[i] = x[i * stride];
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(some));
}

/// Eight pairs.
[[gnu::always_inline]] inline __m256i join(__m128i low, __m128i high) {
  return _mm256_set_m128i(_mm_unpackhi_epi16(low, high), _mm_unpacklo_epi16(low, high));
}

/// The sixteen columns from `row` on (rows of the operand), where k is contiguous or nothing is.
void half_across(const Operand& b, std::int64_t row, ColumnPair* to) {
  for (std::int64_t k = 0; k < b.k; k += kLanes) {
    const auto row_at = [&](std::int64_t r) {
      return r < b.rows ? eight(b, r, k, b.k_stride, b.k - k) : _mm_setzero_si128();
    };
    Tile tile;
#pragma GCC unroll 8
    for (std::int64_t r = 0; r < kLanes; ++r) {
      tile.row[r] = _mm256_castsi256_ps(join(row_at(row + r), row_at(row + kLanes + r)));
    }
    transpose(tile);
#pragma GCC unroll 8
    for (std::int64_t i = 0; i < kLanes; ++i) {
      if (k + i == b.k) return;
      _mm256_store_ps(reinterpret_cast<float*>(to + (k + i) * kPairs), tile.row[i]);
    }
  }
}

/// The same at [k_begin, k_end), where rows are.
void half_along(const Operand& b, std::int64_t row, std::int64_t k_begin, std::int64_t k_end, ColumnPair* to) {
  const auto* from = static_cast<const BFloat16*>(b.values) + row;
  for (std::int64_t k = k_begin; k < k_end; ++k) {
    _mm_prefetch(reinterpret_cast<const char*>(from + (k + kDeep) * b.k_stride), _MM_HINT_T0);  // a page away
    const __m256i pairs = join(eight(b, row, k, 1, b.rows - row), eight(b, row + kLanes, k, 1, b.rows - row - kLanes));
    _mm256_store_si256(reinterpret_cast<__m256i*>(to + k * kPairs), pairs);
  }
}

}  // namespace

void pack_halves(const Operand& b, std::int64_t first_column, std::int64_t panels, void* to) {
  const auto row = [&](std::int64_t half) { return first_column + half * kHalf; };
  const auto out = [&](std::int64_t half) {
    return static_cast<ColumnPair*>(to) + half / 2 * b.k * kPairs + half % 2 * kLanes;
  };
  const std::int64_t halves = panels * (kPanel / kHalf);
  if (b.k_stride == 1 || b.row_stride != 1) {
    for (std::int64_t half = 0; half < halves; ++half) half_across(b, row(half), out(half));
    return;
  }
  for (std::int64_t k = 0; k < b.k; k += kDeep) {  // halves share lines: all take their part of k before the next part
    for (std::int64_t half = 0; half < halves; ++half) {
      half_along(b, row(half), k, std::min(k + kDeep, b.k), out(half));
    }
  }
}

}  // namespace shoestring::gemm_detail::avx2
#pragma GCC pop_options
