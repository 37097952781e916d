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

#include "kernels/gemm_tile_avx512.h"

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

/// Rows of c that are written as soon as their sums are complete: memory then works while the next rows are multiplied.
struct Destination {
  float* c = nullptr;  ///< nullptr: sums go to the strip
  std::int64_t row_stride = 0;
  std::int64_t rows = 0;
  bool accumulate = false;
  bool bypass = false;

  [[gnu::always_inline]] void write(std::int64_t row, __m512 low, __m512 high) const {
    float* to = c + row * row_stride;
    if (accumulate) {
      low = _mm512_add_ps(low, _mm512_loadu_ps(to));
      high = _mm512_add_ps(high, _mm512_loadu_ps(to + 16));
    }
    if (bypass) {
      _mm512_stream_ps(to, low);
      _mm512_stream_ps(to + 16, high);
    } else {
      _mm512_storeu_ps(to, low);
      _mm512_storeu_ps(to + 16, high);
    }
  }
};

/// Where the sums of whole f32 rows go; other outputs are left to the general writer.
Destination destination_of(const Output& out) {
  if (out.dtype != DType::f32 || out.columns != kPanel || out.bias != nullptr || out.factor != 1.0f) return {};
  const bool lines = out.row_stride % 16 == 0 && reinterpret_cast<std::uintptr_t>(out.c) % 64 == 0;
  return {static_cast<float*>(out.c), out.row_stride, 0, out.accumulate, out.bypass_cache && lines};
}

void multiply_tile(const float* a, const float* b, std::int64_t count, float* strip, const Promotion& promotion,
                   const Destination& to_c) {
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
    if (to_c.c == nullptr) {
      _mm512_store_ps(to, low[i]);
      _mm512_store_ps(to + 16, high[i]);
    } else if (i < to_c.rows) {
      to_c.write(i, low[i], high[i]);
    }
  }
}

void multiply(const PanelProduct& w) {
  const std::int64_t depth = w.k_per_scale == 0 ? kDepth : w.k_per_scale;
  const auto* b = static_cast<const float*>(w.b);
  const Destination rows_of_c = destination_of(w.out);
  for (std::int64_t k = w.k_begin; k < w.k_end; k += depth) {
    const std::int64_t count = std::min(depth, w.k_end - k);
    Promotion promotion{k == 0, nullptr, _mm512_setzero_ps(), _mm512_setzero_ps()};
    const std::int64_t block = w.k_per_scale == 0 ? 0 : k / w.k_per_scale;
    if (w.k_per_scale != 0) {
      promotion.low = _mm512_load_ps(w.b_scales + block * kPanel);
      promotion.high = _mm512_load_ps(w.b_scales + block * kPanel + 16);
    }
    const bool complete = w.last && k + depth >= w.k_end && rows_of_c.c != nullptr;
    for (std::int64_t at = 0; at * kRows < w.rows; ++at) {
      Destination to;
      if (complete) {
        to = rows_of_c;
        to.c += at * kRows * to.row_stride;
        to.rows = std::min(kRows, w.rows - at * kRows);
      }
      const auto* a = reinterpret_cast<const float*>(static_cast<const std::byte*>(w.a) + at * w.a_block_bytes);
      if (w.k_per_scale != 0) promotion.row_scales = w.a_scales + (at * w.scale_blocks + block) * kRows;
      multiply_tile(a + k * kRows, b + k * kPanel, count, w.strip + at * kRows * kPanel, promotion, to);
    }
  }
  if (w.last && rows_of_c.c == nullptr) write_strip(w);
}

__mmask16 first_lanes(std::int64_t count) {
  return static_cast<__mmask16>((1u << std::clamp<std::int64_t>(count, 0, 16)) - 1u);
}

/// Rows [begin, begin + 16) of an f32 operand, of which `width` are stored: to[k * stride + row]. k contiguous.
void pack_across(const Operand& a, std::int64_t begin, std::int64_t width, std::int64_t stride, float* to) {
  const std::int64_t rows = std::min(width, a.rows - begin);
  const auto* from = static_cast<const float*>(a.values) + begin * a.row_stride;
  const __mmask16 stored = first_lanes(width);
  for (std::int64_t k = 0; k < a.k; k += 16) {
    const __mmask16 columns = first_lanes(a.k - k);
    Tile tile;
    for (std::int64_t r = 0; r < 16; ++r) {
      tile.row[r] = _mm512_maskz_loadu_epi32(r < rows ? columns : 0, from + r * a.row_stride + k);
    }
    transpose(tile);
    const std::int64_t count = std::min<std::int64_t>(16, a.k - k);
    for (std::int64_t i = 0; i < count; ++i) _mm512_mask_storeu_epi32(to + (k + i) * stride, stored, tile.row[i]);
  }
}

/// The same for rows that lie side by side, and k from `k_begin` to `k_end`.
void pack_along(const Operand& a, std::int64_t begin, std::int64_t width, std::int64_t k_begin, std::int64_t k_end,
                std::int64_t stride, float* to) {
  const __mmask16 present = first_lanes(std::min(width, a.rows - begin));
  const __mmask16 stored = first_lanes(width);
  const auto* from = static_cast<const float*>(a.values) + begin;
  for (std::int64_t k = k_begin; k < k_end; ++k) {
    _mm512_mask_storeu_ps(to + k * stride, stored, _mm512_maskz_loadu_ps(present, from + k * a.k_stride));
  }
}

/// As pack_f32, in registers where the operand is f32 and one dim contiguous.
void pack_blocks(const Operand& a, std::int64_t begin, std::int64_t rows, std::int64_t width, float* to) {
  constexpr std::int64_t kAlong = 128;  // of k at a time: neighbouring blocks share its cache lines
  if (a.dtype != DType::f32 || (a.k_stride != 1 && a.row_stride != 1)) return pack_f32(a, begin, rows, width, to);
  const std::int64_t depth = a.k_stride == 1 ? a.k : kAlong;
  for (std::int64_t k = 0; k < a.k; k += depth) {
    for (std::int64_t block = 0; block < rows; block += width) {
      for (std::int64_t part = 0; part < width; part += 16) {
        float* out = to + block * a.k + part;
        const std::int64_t lanes = std::min<std::int64_t>(16, width - part);
        if (a.k_stride == 1) {
          pack_across(a, begin + block + part, lanes, width, out);
        } else {
          pack_along(a, begin + block + part, lanes, k, std::min(k + depth, a.k), width, out);
        }
      }
    }
  }
}

void pack_rows(const Operand& a, std::int64_t begin, std::int64_t rows, void* to) {
  pack_blocks(a, begin, round_up(rows, kRows), kRows, static_cast<float*>(to));
}

void pack_panels(const Operand& b, std::int64_t first_column, std::int64_t panels, void* to) {
  pack_blocks(b, first_column, panels * kPanel, kPanel, static_cast<float*>(to));
}

void enter() {}
void leave() { _mm_sfence(); }  // streamed rows of c are visible before the workers meet

}  // namespace

const Machine machine{
    .feature = &CpuFeatures::avx512,
    .feature_name = "AVX-512",
    .layout = PackedMatrix::Layout::f32,
    .row_block = kRows,
    .row_element_bytes = 4,
    .panel_element_bytes = 4,
    .k_multiple = 1,
    .left_bytes = 768 << 10,
    .left_beside_panels_bytes = 768 << 10,
    .enter = enter,
    .leave = leave,
    .reads_in_place = nullptr,
    .pack_rows = pack_rows,
    .quantize_rows = nullptr,
    .pack_panels = pack_panels,
    .multiply = multiply,
};

}  // namespace shoestring::gemm_detail::avx512
#pragma GCC pop_options
