// The portable machine: f32 panels, and sums in the compiler's own vectors of four, which every processor has.
#include <algorithm>
#include <cstring>

#include "kernels/gemm_f32.h"
#include "kernels/gemm_problem.h"

namespace shoestring::gemm_detail::portable {
namespace {

constexpr std::int64_t kRows = 4;
constexpr std::int64_t kColumns = 8;  // of a panel at a time: 4 x 8 sums fit 16 registers of 4
constexpr std::int64_t kDepth = 256;  // of k between two visits of the strip

using Four [[gnu::vector_size(16)]] = float;
static_assert(kColumns == 2 * sizeof(Four) / sizeof(float));

Four load(const float* from) {
  Four four;
  std::memcpy(&four, from, sizeof four);
  return four;
}

/// sums[4][8] = the product of four rows and eight columns over `count` of k.
void multiply_tile(const float* a, const float* b, std::int64_t count, float (&sums)[kRows][kColumns]) {
  Four low[kRows] = {};
  Four high[kRows] = {};
  for (std::int64_t k = 0; k < count; ++k, a += kRows, b += kPanel) {
    const Four b0 = load(b);
    const Four b1 = load(b + kColumns / 2);
#pragma GCC unroll 4
    for (std::int64_t i = 0; i < kRows; ++i) {
      low[i] += a[i] * b0;
      high[i] += a[i] * b1;
    }
  }
  for (std::int64_t i = 0; i < kRows; ++i) {
    std::memcpy(sums[i], &low[i], sizeof(Four));
    std::memcpy(sums[i] + kColumns / 2, &high[i], sizeof(Four));
  }
}

void multiply(const PanelProduct& w) {
  const std::int64_t depth = w.k_per_scale == 0 ? kDepth : w.k_per_scale;
  const auto* b = static_cast<const float*>(w.b);
  for (std::int64_t k = w.k_begin; k < w.k_end; k += depth) {
    const std::int64_t count = std::min(depth, w.k_end - k);
    const std::int64_t block = w.k_per_scale == 0 ? 0 : k / w.k_per_scale;
    for (std::int64_t row = 0; row < w.rows; row += kRows) {
      const auto* a =
          reinterpret_cast<const float*>(static_cast<const std::byte*>(w.a) + row / kRows * w.a_block_bytes);
      float* strip = w.strip + row * kPanel;
      for (std::int64_t j0 = 0; j0 < kPanel; j0 += kColumns) {
        float sums[kRows][kColumns];
        multiply_tile(a + k * kRows, b + k * kPanel + j0, count, sums);
        for (std::int64_t i = 0; i < kRows; ++i) {
          for (std::int64_t j = 0; j < kColumns; ++j) {
            float value = sums[i][j];
            if (w.k_per_scale != 0) {
              const float row_scale = w.a_scales[(row / kRows * w.scale_blocks + block) * kRows + i];
              value *= row_scale * w.b_scales[block * kPanel + j0 + j];
            }
            float& sum = strip[i * kPanel + j0 + j];
            sum = k == 0 ? value : sum + value;
          }
        }
      }
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
    .feature = nullptr,
    .feature_name = {},
    .layout = PackedMatrix::Layout::f32,
    .row_block = kRows,
    .row_element_bytes = 4,
    .panel_element_bytes = 4,
    .k_multiple = 1,
    .left_bytes = 128 << 10,
    .left_beside_panels_bytes = 128 << 10,
    .enter = nothing,
    .leave = nothing,
    .reads_in_place = nullptr,
    .pack_rows = pack_rows,
    .quantize_rows = nullptr,
    .pack_panels = pack_panels_f32,
    .multiply = multiply,
};

}  // namespace shoestring::gemm_detail::portable
