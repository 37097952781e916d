// The AVX2 machines: 6 x 16 sums in twelve registers, two of the panel, one of the rows, FP32 FMA. 8-bit operands and
// BF16 rows are widened when they are packed (gemm_avx2_pack.cpp). BF16 panels stay in BF16 (gemm_avx2_halves.cpp) and
// are widened in registers: where few rows are multiplied, as in generation, the panels' way from memory is what takes
// long, and it is half as much.
//
// A panel is worked on in halves of sixteen columns. Every sum is the same chain of FMA over k as on the AVX-512
// machine, begun anew at the same places and added up in the same order: both give the same bits.
#include <algorithm>

#include "kernels/gemm_avx2_pack.h"
#include "kernels/gemm_f32.h"
#include "kernels/gemm_problem.h"

// GCC 12 takes the undefined source operand inside these intrinsics for a mistake of ours (its bug 105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#include <immintrin.h>

#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")

#include "kernels/gemm_lanes_avx2.h"

namespace shoestring::gemm_detail::avx2 {
namespace {

constexpr std::int64_t kDepth = 256;  // of k between two visits of the strip; the AVX-512 machine's
constexpr int kRowCount = kRows;

/// What is done with the sums of one part of k.
struct Promotion {
  bool first;               ///< the strip holds nothing yet
  const float* row_scales;  ///< nullptr: no promotion
  const float* column_scales;
};

/// Of a panel's cells: how many are one k's columns, and how many their half.
template <class Cell>
constexpr std::int64_t kCells = kPanel;
template <>
constexpr std::int64_t kCells<ColumnPair> = kPanel / 2;
template <class Cell>
constexpr std::int64_t kHalfCells = kCells<Cell> / (kPanel / kHalf);

/// Half a panel's columns at one k.
struct Columns {
  __m256 low;
  __m256 high;
};

[[gnu::always_inline]] inline Columns columns_at(const float* b) {
  return {_mm256_load_ps(b), _mm256_load_ps(b + kLanes)};
}
[[gnu::always_inline]] inline Columns columns_at(const ColumnPair* b) {
  const __m256i pairs = _mm256_load_si256(reinterpret_cast<const __m256i*>(b));
  const __m256i upper = _mm256_set1_epi32(static_cast<int>(0xFFFF0000));
  return {_mm256_castsi256_ps(_mm256_slli_epi32(pairs, 16)), _mm256_castsi256_ps(_mm256_and_si256(pairs, upper))};
}

/// Adds one k's products to the sums.
template <class Cell>
[[gnu::always_inline]] inline void add_products(const float* a, const Cell* b, __m256 (&low)[kRowCount],
                                                __m256 (&high)[kRowCount]) {
  const Columns columns = columns_at(b);
#pragma GCC unroll 6
  for (int i = 0; i < kRowCount; ++i) {
    const __m256 x = _mm256_broadcast_ss(a + i);
    low[i] = _mm256_fmadd_ps(x, columns.low, low[i]);
    high[i] = _mm256_fmadd_ps(x, columns.high, high[i]);
  }
}

/// strip[6][16 of 32] (=|+=) six rows times sixteen columns over `count` of k.
template <class Cell>
[[gnu::noinline]] void multiply_tile(const float* a, const Cell* b, std::int64_t count, float* strip,
                                     const Promotion& promotion) {
  constexpr std::int64_t kAtOnce = 4;  // one at a time takes a sixth longer: the loop's own instructions are in the way
  __m256 low[kRowCount];
  __m256 high[kRowCount];
#pragma GCC unroll 6
  for (int i = 0; i < kRowCount; ++i) low[i] = high[i] = _mm256_setzero_ps();
  std::int64_t k = 0;
  for (; k + kAtOnce <= count; k += kAtOnce) {
#pragma GCC unroll 4
    for (int i = 0; i < kAtOnce; ++i) add_products(a + i * kRows, b + i * kCells<Cell>, low, high);
    a += kAtOnce * kRows;
    b += kAtOnce * kCells<Cell>;
  }
#pragma GCC unroll 1
  for (; k < count; ++k, a += kRows, b += kCells<Cell>) add_products(a, b, low, high);
  if (promotion.row_scales != nullptr) {
    const __m256 c0 = _mm256_load_ps(promotion.column_scales);
    const __m256 c1 = _mm256_load_ps(promotion.column_scales + kLanes);
#pragma GCC unroll 6
    for (int i = 0; i < kRowCount; ++i) {
      const __m256 row = _mm256_broadcast_ss(promotion.row_scales + i);
      low[i] = _mm256_mul_ps(low[i], _mm256_mul_ps(row, c0));
      high[i] = _mm256_mul_ps(high[i], _mm256_mul_ps(row, c1));
    }
  }
  if (!promotion.first) {
#pragma GCC unroll 6
    for (int i = 0; i < kRowCount; ++i) {
      low[i] = _mm256_add_ps(low[i], _mm256_load_ps(strip + i * kPanel));
      high[i] = _mm256_add_ps(high[i], _mm256_load_ps(strip + i * kPanel + kLanes));
    }
  }
#pragma GCC unroll 6
  for (int i = 0; i < kRowCount; ++i) {
    _mm256_store_ps(strip + i * kPanel, low[i]);
    _mm256_store_ps(strip + i * kPanel + kLanes, high[i]);
  }
}

/// strip[kFew][32] (=|+=) one to three rows times all columns over `count` of k: what generation multiplies. Six rows
/// would take up to three times as long for them, which is longer than the panel takes to come from memory.
template <class Cell, int kFew>
[[gnu::noinline]] void multiply_few(const float* a, const Cell* b, std::int64_t count, float* strip,
                                    const Promotion& promotion) {
  constexpr int kVectors = kPanel / kLanes;
  __m256 sum[kFew][kVectors];
#pragma GCC unroll 3
  for (int r = 0; r < kFew; ++r) {
#pragma GCC unroll 4
    for (int i = 0; i < kVectors; ++i) sum[r][i] = _mm256_setzero_ps();
  }
#pragma GCC unroll 2
  for (std::int64_t k = 0; k < count; ++k) {
#pragma GCC unroll 2
    for (int i = 0; i < kVectors; i += 2) {
      const Columns columns = columns_at(b + k * kCells<Cell> + i / 2 * kHalfCells<Cell>);
#pragma GCC unroll 3
      for (int r = 0; r < kFew; ++r) {
        const __m256 x = _mm256_broadcast_ss(a + k * kRows + r);
        sum[r][i] = _mm256_fmadd_ps(x, columns.low, sum[r][i]);
        sum[r][i + 1] = _mm256_fmadd_ps(x, columns.high, sum[r][i + 1]);
      }
    }
  }
#pragma GCC unroll 3
  for (int r = 0; r < kFew; ++r) {
#pragma GCC unroll 4
    for (int i = 0; i < kVectors; ++i) {
      float* const to = strip + r * kPanel + i * kLanes;
      if (promotion.row_scales != nullptr) {
        const __m256 columns = _mm256_load_ps(promotion.column_scales + i * kLanes);
        const __m256 row = _mm256_broadcast_ss(promotion.row_scales + r);
        sum[r][i] = _mm256_mul_ps(sum[r][i], _mm256_mul_ps(row, columns));
      }
      if (!promotion.first) sum[r][i] = _mm256_add_ps(sum[r][i], _mm256_load_ps(to));
      _mm256_store_ps(to, sum[r][i]);
    }
  }
}

/// A row block of `rows` times the panel over `count` of k, into its strip.
template <class Cell>
void multiply_block(const float* a, const Cell* b, std::int64_t count, std::int64_t rows, std::int64_t columns,
                    float* strip, Promotion promotion) {
  if (rows == 1) return multiply_few<Cell, 1>(a, b, count, strip, promotion);
  if (rows == 2) return multiply_few<Cell, 2>(a, b, count, strip, promotion);
  if (rows == 3) return multiply_few<Cell, 3>(a, b, count, strip, promotion);
  for (std::int64_t half = 0; half < columns; half += kHalf) {
    multiply_tile(a, b + half / kHalf * kHalfCells<Cell>, count, strip + half, promotion);
    if (promotion.column_scales != nullptr) promotion.column_scales += kHalf;
  }
}

/// BFloat16(float) of eight elements.
[[gnu::always_inline]] inline __m128i narrow(__m256 x) {
  const __m256i bits = _mm256_castps_si256(x);
  const __m256i upper = _mm256_srli_epi32(bits, 16);
  const __m256i odd = _mm256_and_si256(upper, _mm256_set1_epi32(1));
  const __m256i rounded =
      _mm256_srli_epi32(_mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7FFF)), odd), 16);
  const __m256i quiet = _mm256_or_si256(upper, _mm256_set1_epi32(0x40));
  const __m256i is_nan = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
  const __m256i words = _mm256_blendv_epi8(rounded, quiet, is_nan);
  return _mm_packus_epi32(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
}

[[gnu::always_inline]] inline void store(float* c, __m256 x, bool bypass) {
  bypass ? _mm256_stream_ps(c, x) : _mm256_storeu_ps(c, x);
}
[[gnu::always_inline]] inline void store(BFloat16* c, __m256 x, bool) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(c), narrow(x));
}

/// As write_strip, for columns in whole vectors.
template <class Element>
void write_vectors(const PanelProduct& w, std::int64_t vectors) {
  const Output& out = w.out;
  const bool bypass = out.bypass_cache && out.row_stride * sizeof(Element) % 64 == 0 &&
                      reinterpret_cast<std::uintptr_t>(out.c) % 64 == 0;
  const __m256 factor = _mm256_set1_ps(out.factor);
  for (std::int64_t row = 0; row < w.rows; ++row) {
    Element* c = static_cast<Element*>(out.c) + row * out.row_stride;
    for (std::int64_t j = 0; j < vectors * kLanes; j += kLanes) {
      __m256 value = _mm256_load_ps(w.strip + row * kPanel + j);
      if (out.factor != 1.0f) value = _mm256_mul_ps(value, factor);
      if (out.bias != nullptr) {
        value = _mm256_add_ps(value, out.bias_dtype == DType::bf16 ? widen(static_cast<const BFloat16*>(out.bias) + j)
                                                                   : widen(static_cast<const float*>(out.bias) + j));
      }
      if (out.accumulate) value = _mm256_add_ps(value, widen(c + j));
      store(c + j, value, bypass);
    }
  }
}

/// `work` from column `by` on.
PanelProduct from_column(const PanelProduct& work, std::int64_t by) {
  PanelProduct rest = work;
  rest.strip += by;
  rest.out.c = static_cast<std::byte*>(work.out.c) + by * size_bytes(work.out.dtype);
  rest.out.columns -= by;
  if (work.out.bias != nullptr) {
    rest.out.bias = static_cast<const std::byte*>(work.out.bias) + by * size_bytes(work.out.bias_dtype);
  }
  return rest;
}

/// Writes the rows of a finished strip.
void write(const PanelProduct& w) {
  const std::int64_t vectors = w.out.columns / kLanes;
  w.out.dtype == DType::bf16 ? write_vectors<BFloat16>(w, vectors) : write_vectors<float>(w, vectors);
  if (vectors * kLanes < w.out.columns) write_strip(from_column(w, vectors * kLanes));
}

/// The rows of `w` from `row` on, at most a row block.
PanelProduct row_block_of(const PanelProduct& w, std::int64_t row) {
  PanelProduct block = w;
  block.rows = std::min(kRows, w.rows - row);
  block.strip += row * kPanel;
  block.out.c = static_cast<std::byte*>(w.out.c) + row * w.out.row_stride * size_bytes(w.out.dtype);
  return block;
}

template <class Cell>
void multiply(const PanelProduct& w) {
  const std::int64_t depth = w.k_per_scale == 0 ? kDepth : w.k_per_scale;
  const auto* b = static_cast<const Cell*>(w.b);
  for (std::int64_t k = w.k_begin; k < w.k_end; k += depth) {
    const std::int64_t count = std::min(depth, w.k_end - k);
    const std::int64_t block = w.k_per_scale == 0 ? 0 : k / w.k_per_scale;
    const bool complete = w.last && k + depth >= w.k_end;
    for (std::int64_t row = 0; row < w.rows; row += kRows) {
      const std::int64_t at = row / kRows;
      const auto* a = reinterpret_cast<const float*>(static_cast<const std::byte*>(w.a) + at * w.a_block_bytes);
      Promotion promotion{k == 0, nullptr, nullptr};
      if (w.k_per_scale != 0) {
        promotion.row_scales = w.a_scales + (at * w.scale_blocks + block) * kRows;
        promotion.column_scales = w.b_scales + block * kPanel;
      }
      multiply_block(a + k * kRows, b + k * kCells<Cell>, count, w.rows - row, w.out.columns, w.strip + row * kPanel,
                     promotion);
      if (complete) write(row_block_of(w, row));
    }
  }
}

void enter() {}
void leave() { _mm_sfence(); }  // streamed rows of c are visible before the workers meet

}  // namespace

const Machine machine{
    .feature = &CpuFeatures::avx2,
    .feature_name = "AVX2",
    .layout = PackedMatrix::Layout::f32,
    .row_block = kRows,
    .row_element_bytes = 4,
    .panel_element_bytes = 4,
    .k_multiple = 1,
    .left_bytes = 256 << 10,
    .left_beside_panels_bytes = 256 << 10,
    .enter = enter,
    .leave = leave,
    .reads_in_place = nullptr,
    .pack_rows = pack_rows,
    .quantize_rows = quantize_rows,
    .pack_panels = pack_panels,
    .multiply = multiply<float>,
};

const Machine bf16_machine{
    .feature = &CpuFeatures::avx2,
    .feature_name = "AVX2",
    .layout = PackedMatrix::Layout::bf16_halves,
    .row_block = kRows,
    .row_element_bytes = 4,
    .panel_element_bytes = 2,
    .k_multiple = 1,
    .left_bytes = 256 << 10,
    .left_beside_panels_bytes = 256 << 10,
    .enter = enter,
    .leave = leave,
    .reads_in_place = nullptr,
    .pack_rows = pack_rows,
    .quantize_rows = nullptr,
    .pack_panels = pack_halves,
    .multiply = multiply<ColumnPair>,
};

}  // namespace shoestring::gemm_detail::avx2
#pragma GCC pop_options
