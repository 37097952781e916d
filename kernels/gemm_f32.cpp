#include "kernels/gemm_f32.h"

#include <algorithm>
#include <array>

#include "kernels/base/check.h"

namespace shoestring::gemm_detail {
namespace {

template <class Code>
std::array<float, 256> decode_table() {
  std::array<float, 256> table{};
  for (std::size_t code = 0; code < 256; ++code) {
    Code value;
    value.bits = static_cast<std::uint8_t>(code);
    table[code] = float{value};
  }
  return table;
}

const std::array<float, 256>& codes_of(DType dtype) {
  static const auto e4m3 = decode_table<E4M3>();
  static const auto e5m2 = decode_table<E5M2>();
  return dtype == DType::e4m3 ? e4m3 : e5m2;
}

/// One row's elements [k, k + count) into to[0], to[step] ... as f32, without scales.
void widen(const Operand& a, std::int64_t row, std::int64_t k, std::int64_t count, std::int64_t step, float* to) {
  const std::int64_t at = row * a.row_stride + k * a.k_stride;
  const auto copy = [&](const auto* from, auto convert) {
    for (std::int64_t i = 0; i < count; ++i) to[i * step] = convert(from[at + i * a.k_stride]);
  };
  if (a.dtype == DType::f32) {
    copy(static_cast<const float*>(a.values), [](float x) { return x; });
  } else if (a.dtype == DType::bf16) {
    copy(static_cast<const BFloat16*>(a.values), [](BFloat16 x) { return float{x}; });
  } else {
    const float* table = codes_of(a.dtype).data();
    copy(static_cast<const std::uint8_t*>(a.values), [table](std::uint8_t code) { return table[code]; });
  }
}

template <class Element>
void write_row(const PanelProduct& w, const float* strip, Element* c) {
  const Output& out = w.out;
  for (std::int64_t j = 0; j < out.columns; ++j) {
    float value = strip[j];
    if (out.factor != 1.0f) value *= out.factor;
    if (out.bias != nullptr) {
      value += out.bias_dtype == DType::bf16 ? float{static_cast<const BFloat16*>(out.bias)[j]}
                                             : static_cast<const float*>(out.bias)[j];
    }
    if (out.accumulate) value += float{c[j]};
    c[j] = Element(value);
  }
}

}  // namespace

void pack_f32(const Operand& a, std::int64_t begin, std::int64_t rows, std::int64_t width, float* to) {
  constexpr std::int64_t kAtOnce = 32;  // divides every tile of scales along k
  for (std::int64_t r = 0; r < rows; ++r) {
    float* out = to + (r / width) * width * a.k + r % width;
    const std::int64_t row = begin + r;
    for (std::int64_t k = 0; k < a.k; k += kAtOnce) {
      const std::int64_t count = std::min(kAtOnce, a.k - k);
      if (row >= a.rows) {
        for (std::int64_t i = 0; i < count; ++i) out[(k + i) * width] = 0;
        continue;
      }
      widen(a, row, k, count, width, out + k * width);
      if (a.folded) {
        const float scale = a.scale(row, k);
        for (std::int64_t i = 0; i < count; ++i) out[(k + i) * width] *= scale;
      }
    }
  }
}

void pack_panels_f32(const Operand& b, std::int64_t first_column, std::int64_t panels, void* to) {
  pack_f32(b, first_column, panels * kPanel, kPanel, static_cast<float*>(to));
}

void write_strip(const PanelProduct& w) {
  for (std::int64_t row = 0; row < w.rows; ++row) {
    const float* strip = w.strip + row * kPanel;
    if (w.out.dtype == DType::bf16) {
      write_row(w, strip, static_cast<BFloat16*>(w.out.c) + row * w.out.row_stride);
    } else {
      write_row(w, strip, static_cast<float*>(w.out.c) + row * w.out.row_stride);
    }
  }
}

}  // namespace shoestring::gemm_detail
