// What one thread does in quantising on a CUDA device: four neighbours loaded, coded, stored; scales; what was lost.
// Codes come from the processor's conversion, which rounds and saturates as E4M3 and E5M2 of dtype.h do; signs are x's
// own, so that NaN agrees too. For .cu files.
#pragma once

#include "kernels/cuda_elements.cuh"

#include <cuda_fp8.h>

#include "kernels/quantize_cuda.h"

namespace shoestring::quantization::cuda {
namespace {

using quantize_tile::Format;
using quantize_tile::kLargestFinite;
using quantize_tile::kMagnitude;
using quantize_tile::RowTile;
using quantize_tile::Scale;

constexpr int kRows = kRowsPerWarp;

template <class Payload>
struct Traits;
template <>
struct Traits<E4M3> {
  static constexpr __nv_fp8_interpretation_t interpretation = __NV_E4M3;
  static constexpr Format format = quantize_tile::kE4M3;
};
template <>
struct Traits<E5M2> {
  static constexpr __nv_fp8_interpretation_t interpretation = __NV_E5M2;
  static constexpr Format format = quantize_tile::kE5M2;
};

/// Tile `index`: of the last segment that begins at or before it (an empty one begins where the next does).
__device__ inline RowTile row_tile(const Cut& cut, int index) {
  int segment = 0;
  for (int step = 256; step > 0; step /= 2) {
    if (segment + step < cut.segments && cut.first_tile[segment + step] <= index) segment += step;
  }
  const int begin = cut.offsets[segment] + (index - cut.first_tile[segment]) * cut.tile_rows;
  return {begin, min(cut.tile_rows, cut.offsets[segment + 1] - begin)};
}

/// Magnitude bits, 0 for NaN and infinities.
__device__ inline std::uint32_t finite_bits(float x) {
  const std::uint32_t bits = __float_as_uint(x) & kMagnitude;
  return bits <= kLargestFinite ? bits : 0u;
}

/// Four codes, the first in the lowest byte.
template <class Payload>
__device__ std::uint32_t encode4(const float x[4], const float inverse[4]) {
  constexpr __nv_fp8_interpretation_t kFormat = Traits<Payload>::interpretation;
  float y[4];
  for (int i = 0; i < 4; ++i) y[i] = fabsf(__fmul_rn(x[i], inverse[i]));
  const std::uint32_t low = __nv_cvt_float2_to_fp8x2(make_float2(y[0], y[1]), __NV_SATFINITE, kFormat);
  const std::uint32_t high = __nv_cvt_float2_to_fp8x2(make_float2(y[2], y[3]), __NV_SATFINITE, kFormat);
  std::uint32_t codes = low | high << 16;
  if constexpr (kFormat == __NV_E5M2) {  // several codes of E5M2 are NaN; dtype.h uses one
    for (int i = 0; i < 4; ++i) {
      if (y[i] != y[i]) codes = (codes & ~(0xFFu << 8 * i)) | 0x7Eu << 8 * i;
    }
  }
  const std::uint32_t top01 = __byte_perm(__float_as_uint(x[0]), __float_as_uint(x[1]), 0x0073);
  const std::uint32_t top23 = __byte_perm(__float_as_uint(x[2]), __float_as_uint(x[3]), 0x0073);
  return (codes & 0x7F7F7F7Fu) | (__byte_perm(top01, top23, 0x5410) & 0x80808080u);
}

struct Lost {
  std::uint32_t saturated = 0;
  std::uint32_t underflowed = 0;
  std::uint32_t non_finite = 0;
};

template <class Payload>
__device__ void count_lost(const float x[4], const float inverse[4], Lost& lost) {
  constexpr Format kFormat = Traits<Payload>::format;
  for (int i = 0; i < 4; ++i) {
    lost.saturated += quantize_tile::saturates(x[i], inverse[i], kFormat);
    lost.underflowed += quantize_tile::underflows(x[i], inverse[i], kFormat);
    lost.non_finite += !quantize_tile::finite(x[i]);
  }
}

__device__ inline void store_scale(const Output& out, bool e8m0, std::int64_t row, std::int64_t column, float scale) {
  const std::int64_t at = row * out.scale_row_stride + column * out.scale_column_stride;
  if (e8m0) {
    static_cast<E8M0*>(out.scales)[at] = E8M0(scale);
  } else {
    static_cast<float*>(out.scales)[at] = scale;
  }
}

__device__ inline float load_scale(const Output& out, bool e8m0, std::int64_t row, std::int64_t column) {
  const std::int64_t at = row * out.scale_row_stride + column * out.scale_column_stride;
  return e8m0 ? float{static_cast<const E8M0*>(out.scales)[at]} : static_cast<const float*>(out.scales)[at];
}

/// Computes and stores, or reads, the scale of one tile.
template <class Payload>
__device__ Scale resolve(const Parameters& p, const Output& out, std::int64_t row, std::int64_t column,
                         std::uint32_t amax) {
  if (p.given) return quantize_tile::given(load_scale(out, p.e8m0, row, column));
  const Scale scale = quantize_tile::scale_of(amax, p.kind, Traits<Payload>::format);
  store_scale(out, p.e8m0, row, column, scale.scale);
  return scale;
}

__device__ inline void store4(const Parameters& p, const Output& out, std::int64_t row, std::int64_t column,
                              std::uint32_t codes) {
  std::uint8_t* to = out.values + row * out.row_stride + column * out.column_stride;
  if (p.vector_store && out.column_stride == 1) {
    *reinterpret_cast<std::uint32_t*>(to) = codes;
    return;
  }
  for (int i = 0; i < 4; ++i) {
    if (column + i < p.columns) to[i * out.column_stride] = static_cast<std::uint8_t>(codes >> 8 * i);
  }
}

}  // namespace
}  // namespace shoestring::quantization::cuda
