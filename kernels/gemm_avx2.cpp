// The AVX2 machine: 6 x 16 sums in twelve registers, two of the panel, one of the rows, FP32 FMA. BF16 and 8-bit
// operands are widened when they are packed (gemm_avx2_pack.cpp).
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

constexpr std::int64_t kHalf = 16;    // columns that are multiplied together
constexpr std::int64_t kDepth = 256;  // of k between two visits of the strip; the AVX-512 machine's
constexpr int kRowCount = kRows;

/// What is done with the sums of one part of k.
struct Promotion {
  bool first;               ///< the strip holds nothing yet
  const float* row_scales;  ///< nullptr: no promotion
  const float* column_scales;
};

/// Adds one k's products to the sums.
[[gnu::always_inline]] inline void add_products(const float* a, const float* b, __m256 (&low)[kRowCount],
                                                __m256 (&high)[kRowCount]) {
  const __m256 b0 = _mm256_load_ps(b);
  const __m256 b1 = _mm256_load_ps(b + kLanes);
#pragma GCC unroll 6
  for (int i = 0; i < kRowCount; ++i) {
    const __m256 x = _mm256_broadcast_ss(a + i);
    low[i] = _mm256_fmadd_ps(x, b0, low[i]);
    high[i] = _mm256_fmadd_ps(x, b1, high[i]);
  }
}

/// strip[6][16 of 32] (=|+=) six rows times sixteen columns over `count` of k.
[[gnu::noinline]] void multiply_tile(const float* a, const float* b, std::int64_t count, float* strip,
                                     const Promotion& promotion) {
  constexpr std::int64_t kAtOnce = 4;  // one at a time takes a sixth longer: the loop's own instructions are in the way
  __m256 low[kRowCount];
  __m256 high[kRowCount];
#pragma GCC unroll 6
  for (int i = 0; i < kRowCount; ++i) low[i] = high[i] = _mm256_setzero_ps();
  std::int64_t k = 0;
  for (; k + kAtOnce <= count; k += kAtOnce) {
#pragma GCC unroll 4
    for (int i = 0; i < kAtOnce; ++i) add_products(a + i * kRows, b + i * kPanel, low, high);
    a += kAtOnce * kRows;
    b += kAtOnce * kPanel;
  }
#pragma GCC unroll 1
  for (; k < count; ++k, a += kRows, b += kPanel) add_products(a, b, low, high);
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

/// strip[32] (=|+=) one row times all columns over `count` of k: what generation multiplies. Six rows would take three
/// times as long for it, which is longer than the panel takes to come from memory.
[[gnu::noinline]] void multiply_row(const float* a, const float* b, std::int64_t count, float* strip,
                                    const Promotion& promotion) {
  constexpr int kVectors = kPanel / kLanes;
  __m256 sum[kVectors];
#pragma GCC unroll 4
  for (int i = 0; i < kVectors; ++i) sum[i] = _mm256_setzero_ps();
#pragma GCC unroll 4
  for (std::int64_t k = 0; k < count; ++k) {
    const __m256 x = _mm256_broadcast_ss(a + k * kRows);
#pragma GCC unroll 4
    for (int i = 0; i < kVectors; ++i) {
      sum[i] = _mm256_fmadd_ps(x, _mm256_load_ps(b + k * kPanel + i * kLanes), sum[i]);
    }
  }
#pragma GCC unroll 4
  for (int i = 0; i < kVectors; ++i) {
    if (promotion.row_scales != nullptr) {
      const __m256 columns = _mm256_load_ps(promotion.column_scales + i * kLanes);
      sum[i] = _mm256_mul_ps(sum[i], _mm256_mul_ps(_mm256_broadcast_ss(promotion.row_scales), columns));
    }
    if (!promotion.first) sum[i] = _mm256_add_ps(sum[i], _mm256_load_ps(strip + i * kLanes));
    _mm256_store_ps(strip + i * kLanes, sum[i]);
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

void multiply(const PanelProduct& w) {
  const std::int64_t depth = w.k_per_scale == 0 ? kDepth : w.k_per_scale;
  const auto* b = static_cast<const float*>(w.b);
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
      if (w.rows - row == 1) {
        multiply_row(a + k * kRows, b + k * kPanel, count, w.strip + row * kPanel, promotion);
      } else {
        for (std::int64_t half = 0; half < std::min(w.out.columns, kPanel); half += kHalf) {
          multiply_tile(a + k * kRows, b + k * kPanel + half, count, w.strip + row * kPanel + half, promotion);
          if (promotion.column_scales != nullptr) promotion.column_scales += kHalf;
        }
      }
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
    .element_bytes = 4,
    .k_multiple = 1,
    .left_bytes = 256 << 10,
    .left_beside_panels_bytes = 256 << 10,
    .enter = enter,
    .leave = leave,
    .reads_in_place = nullptr,
    .pack_rows = pack_rows,
    .quantize_rows = quantize_rows,
    .pack_panels = pack_panels,
    .multiply = multiply,
};

}  // namespace shoestring::gemm_detail::avx2
#pragma GCC pop_options
