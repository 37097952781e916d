// Operands into f32 panels and row blocks, eight elements at a time: what pack_f32 does one by one, with the same bits.
// Where k is contiguous, tiles of 8 x 8 are transposed in registers; where rows are, they are widened as they stand.
#include "kernels/gemm_avx2_pack.h"

#include <algorithm>

#include "kernels/gemm_f32.h"

// GCC 12 takes the undefined source operand inside these intrinsics for a mistake of ours (its bug 105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#include <immintrin.h>

#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")

#include "kernels/gemm_lanes_avx2.h"

namespace shoestring::gemm_detail::avx2 {
namespace {

constexpr std::int64_t kDeep = 32;  // of k at a time: divides every tile of scales along k

/// Up to eight rows of an operand and where they go: to[k * width + row], of which kStored are written.
struct Rows {
  std::int64_t begin;
  std::int64_t present;  ///< of the operand; the others are zeros
  std::int64_t width;
  float* to;
};

/// kDeep of k (or what is left of it) where k is contiguous.
template <class Element, int kStored>
void pack_across(const Operand& a, const Rows& rows, std::int64_t k_begin) {
  const std::int64_t k_end = std::min(k_begin + kDeep, a.k);
  const Element* from = static_cast<const Element*>(a.values) + rows.begin * a.row_stride;
  __m256 scale[kStored];
  for (std::int64_t r = 0; a.folded && r < kStored; ++r) {
    scale[r] = _mm256_set1_ps(r < rows.present ? a.scale(rows.begin + r, k_begin) : 0.0f);
  }
  for (std::int64_t k = k_begin; k < k_end; k += kLanes) {
    const std::int64_t count = std::min(kLanes, k_end - k);
    Tile tile;
    if (rows.present >= kStored && count == kLanes) [[likely]] {
#pragma GCC unroll 8
      for (int r = 0; r < kStored; ++r) tile.row[r] = widen(from + r * a.row_stride + k);
    } else {
      for (int r = 0; r < kStored; ++r) {
        tile.row[r] = r < rows.present ? widen_some(from + r * a.row_stride + k, count) : _mm256_setzero_ps();
      }
    }
#pragma GCC unroll 8
    for (int r = kStored; r < kLanes; ++r) tile.row[r] = _mm256_setzero_ps();
    if (a.folded) {
#pragma GCC unroll 8
      for (int r = 0; r < kStored; ++r) tile.row[r] = _mm256_mul_ps(tile.row[r], scale[r]);
    }
    transpose(tile);
    store_columns<kStored>(tile, count, rows.width, k + count == a.k, rows.to + k * rows.width);
  }
}

/// The same where rows are.
template <class Element, int kStored>
void pack_along(const Operand& a, const Rows& rows, std::int64_t k_begin) {
  const std::int64_t k_end = std::min(k_begin + kDeep, a.k);
  const Element* from = static_cast<const Element*>(a.values) + rows.begin;
  alignas(32) float scales[kLanes] = {};
  for (std::int64_t r = 0; a.folded && r < std::min<std::int64_t>(rows.present, kStored); ++r) {
    scales[r] = a.scale(rows.begin + r, k_begin);
  }
  const __m256 scale = _mm256_load_ps(scales);
  const bool whole = rows.present >= kLanes;  // of six, two more are read
  for (std::int64_t k = k_begin; k < k_end; ++k) {
    const Element* x = from + k * a.k_stride;
    _mm_prefetch(reinterpret_cast<const char*>(x + kDeep * a.k_stride), _MM_HINT_T0);  // a page away: no hardware does
    __m256 value = whole ? widen(x) : widen_some(x, rows.present);
    if (a.folded) value = _mm256_mul_ps(value, scale);
    float* to = rows.to + k * rows.width;
    if (kStored == kLanes || k + 1 < a.k) {
      _mm256_storeu_ps(to, value);
    } else {
      store_six(to, value);
    }
  }
}

/// Blocks of `width` rows, kStored at a time. Neighbouring blocks share cache lines where rows are contiguous, so all
/// blocks take their part of k before the next part.
template <class Element, int kStored>
void pack_blocks(const Operand& a, std::int64_t begin, std::int64_t rows, std::int64_t width, float* to) {
  const bool across = a.k_stride == 1;
  const auto part = [&](std::int64_t row, std::int64_t k) {
    const std::int64_t first = begin + row;
    const Rows some{first, std::max<std::int64_t>(0, a.rows - first), width,
                    to + row / width * width * a.k + row % width};
    across ? pack_across<Element, kStored>(a, some, k) : pack_along<Element, kStored>(a, some, k);
  };
  if (across) {
    for (std::int64_t row = 0; row < rows; row += kStored) {
      for (std::int64_t k = 0; k < a.k; k += kDeep) part(row, k);
    }
  } else {
    for (std::int64_t k = 0; k < a.k; k += kDeep) {
      for (std::int64_t row = 0; row < rows; row += kStored) part(row, k);
    }
  }
}

template <int kStored>
void pack_any(const Operand& a, std::int64_t begin, std::int64_t rows, std::int64_t width, float* to) {
  if (a.k_stride != 1 && a.row_stride != 1) return pack_f32(a, begin, rows, width, to);
  switch (a.dtype) {
    case DType::f32: return pack_blocks<float, kStored>(a, begin, rows, width, to);
    case DType::bf16: return pack_blocks<BFloat16, kStored>(a, begin, rows, width, to);
    case DType::e4m3: return pack_blocks<E4M3, kStored>(a, begin, rows, width, to);
    case DType::e5m2: return pack_blocks<E5M2, kStored>(a, begin, rows, width, to);
    default: return pack_f32(a, begin, rows, width, to);
  }
}

}  // namespace

void pack_rows(const Operand& a, std::int64_t begin, std::int64_t rows, void* to) {
  pack_any<kRows>(a, begin, round_up(rows, kRows), kRows, static_cast<float*>(to));
}

void pack_panels(const Operand& b, std::int64_t first_column, std::int64_t panels, void* to) {
  pack_any<kLanes>(b, first_column, panels * kPanel, kPanel, static_cast<float*>(to));
}

}  // namespace shoestring::gemm_detail::avx2
#pragma GCC pop_options
