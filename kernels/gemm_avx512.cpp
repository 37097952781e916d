// The AVX-512 machine: 12 x 32 sums in 24 registers, two panel registers, FP32 FMA. BF16 and 8-bit operands are widened
// when they are packed: VDPBF16PS has half the rate of FMA and rounds differently.
#include <algorithm>

#include "kernels/gemm_f32.h"
#include "kernels/gemm_problem.h"

// GCC 12 takes the undefined source operand inside these intrinsics for a mistake of ours (its bug 105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#include <immintrin.h>

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq")

namespace shoestring::gemm_detail::avx512 {
namespace {

constexpr std::int64_t kRows = 12;
constexpr std::int64_t kDepth = 256;  // of k: a panel's part is 32 KiB
constexpr int kRowCount = 12;

/// What is done with the sums of one part of k.
struct Promotion {
  bool first;  ///< the strip holds nothing yet
  const float* row_scales;
  __m512 low;  ///< scales of the panel's columns
  __m512 high;
};

void multiply_tile(const float* a, const float* b, std::int64_t count, float* strip, const Promotion& promotion) {
  __m512 low[kRowCount];
  __m512 high[kRowCount];
#pragma GCC unroll 12
  for (int i = 0; i < kRowCount; ++i) low[i] = high[i] = _mm512_setzero_ps();
  for (std::int64_t k = 0; k < count; ++k) {
    const __m512 b0 = _mm512_load_ps(b);
    const __m512 b1 = _mm512_load_ps(b + 16);
#pragma GCC unroll 12
    for (int i = 0; i < kRowCount; ++i) {
      const __m512 x = _mm512_set1_ps(a[i]);
      low[i] = _mm512_fmadd_ps(x, b0, low[i]);
      high[i] = _mm512_fmadd_ps(x, b1, high[i]);
    }
    a += kRows;
    b += kPanel;
  }
#pragma GCC unroll 12
  for (int i = 0; i < kRowCount; ++i) {
    float* to = strip + i * kPanel;
    if (promotion.row_scales != nullptr) {
      const __m512 row = _mm512_set1_ps(promotion.row_scales[i]);
      low[i] = _mm512_mul_ps(low[i], _mm512_mul_ps(row, promotion.low));
      high[i] = _mm512_mul_ps(high[i], _mm512_mul_ps(row, promotion.high));
    }
    if (!promotion.first) {
      low[i] = _mm512_add_ps(low[i], _mm512_load_ps(to));
      high[i] = _mm512_add_ps(high[i], _mm512_load_ps(to + 16));
    }
    _mm512_store_ps(to, low[i]);
    _mm512_store_ps(to + 16, high[i]);
  }
}

void multiply(const PanelProduct& w) {
  const std::int64_t depth = w.k_per_scale == 0 ? kDepth : w.k_per_scale;
  const auto* b = static_cast<const float*>(w.b);
  for (std::int64_t k = w.k_begin; k < w.k_end; k += depth) {
    const std::int64_t count = std::min(depth, w.k_end - k);
    Promotion promotion{k == 0, nullptr, _mm512_setzero_ps(), _mm512_setzero_ps()};
    const std::int64_t block = w.k_per_scale == 0 ? 0 : k / w.k_per_scale;
    if (w.k_per_scale != 0) {
      promotion.low = _mm512_load_ps(w.b_scales + block * kPanel);
      promotion.high = _mm512_load_ps(w.b_scales + block * kPanel + 16);
    }
    for (std::int64_t at = 0; at * kRows < w.rows; ++at) {
      const auto* a = reinterpret_cast<const float*>(static_cast<const std::byte*>(w.a) + at * w.a_block_bytes);
      if (w.k_per_scale != 0) promotion.row_scales = w.a_scales + (at * w.scale_blocks + block) * kRows;
      multiply_tile(a + k * kRows, b + k * kPanel, count, w.strip + at * kRows * kPanel, promotion);
    }
  }
  if (w.last) write_strip(w);
}

void pack_rows(const Operand& a, std::int64_t begin, std::int64_t rows, void* to) {
  pack_f32(a, begin, round_up(rows, kRows), kRows, static_cast<float*>(to));
}

void nothing() {}

}  // namespace

const Machine machine{
    .layout = PackedMatrix::Layout::f32,
    .row_block = kRows,
    .element_bytes = 4,
    .k_multiple = 1,
    .left_bytes = 768 << 10,
    .enter = nothing,
    .leave = nothing,
    .pack_rows = pack_rows,
    .pack_panels = pack_panels_f32,
    .multiply = multiply,
};

}  // namespace shoestring::gemm_detail::avx512
#pragma GCC pop_options
