// SwiGLU as one thread computes it: gate and up of four neighbouring columns, whatever holds them. For .cu files.
//
// The order of roundings is the CPU's; exp is CUDA's, within 2 ulp, so results differ from a CPU's in their last bits.
#pragma once

#include "kernels/cuda_elements.cuh"
#include "kernels/swiglu.h"

namespace shoestring::swiglu::cuda {
namespace {

/// [rows, 2f]: gate, then up. With scales, of 1x128 tiles, the values are E4M3.
struct GateUp {
  const void* values;
  std::int64_t row_stride;
  std::int64_t f;
  const void* scales;
  std::int64_t scale_row_stride, scale_tile_stride;
  bool e8m0;
  bool aligned;  ///< four neighbours are one load, gate and up
  const float* row_weight;
  std::int64_t weight_stride;
  float clamp;  ///< infinity: off
};

GateUp gate_up_of(const ConstScaledView& gate_up, ConstTensorView row_weight, float clamp) {
  GateUp in{};
  in.values = gate_up.values.data;
  in.row_stride = gate_up.values.strides[0];
  in.f = gate_up.values.shape[1] / 2;
  if (gate_up.scaled()) {
    in.scales = gate_up.scales.data;
    in.scale_row_stride = gate_up.scales.strides[0];
    in.scale_tile_stride = gate_up.scales.strides[1];
    in.e8m0 = gate_up.scales.dtype == DType::e8m0;
  }
  in.aligned = in.f % 4 == 0 && rows_of_four(in.values, in.row_stride, size_bytes(gate_up.values.dtype));
  in.row_weight = row_weight.as<float>();
  in.weight_stride = row_weight.empty() ? 0 : row_weight.strides[0];
  in.clamp = clamp > 0 ? clamp : INFINITY;
  return in;
}

/// Columns [j, j + 4) of one row; 0 past f.
struct Four {
  float gate[4], up[4];
};

__device__ void load_codes(const GateUp& in, std::int64_t row, std::int64_t column, std::int64_t count, float out[4]) {
  const auto* codes = static_cast<const std::uint8_t*>(in.values) + row * in.row_stride + column;
  const std::int64_t at = row * in.scale_row_stride + column / 128 * in.scale_tile_stride;  // f is a multiple of 128
  const float scale =
      in.e8m0 ? float{static_cast<const E8M0*>(in.scales)[at]} : static_cast<const float*>(in.scales)[at];
  std::uint32_t word = 0;
  if (in.aligned) {
    word = *reinterpret_cast<const std::uint32_t*>(codes);
  } else {
    for (int i = 0; i < 4 && i < count; ++i) word |= static_cast<std::uint32_t>(codes[i]) << 8 * i;
  }
  for (int i = 0; i < 4; ++i) {
    E4M3 code;
    code.bits = static_cast<std::uint8_t>(word >> 8 * i);
    out[i] = __fmul_rn(code, scale);
  }
}

template <class In>
__device__ Four load_pairs(const GateUp& in, std::int64_t row, std::int64_t j) {
  Four four;
  if constexpr (std::is_same_v<In, E4M3>) {
    load_codes(in, row, j, in.f - j, four.gate);
    load_codes(in, row, in.f + j, in.f - j, four.up);
  } else {
    const In* values = static_cast<const In*>(in.values) + row * in.row_stride + j;
    load_up_to4(values, in.f - j, in.aligned, four.gate);
    load_up_to4(values + in.f, in.f - j, in.aligned, four.up);
  }
  return four;
}

/// Gate and up of one column as the formula takes them, and whether a gradient passes.
struct Clamped {
  float g, u;
  bool gate_passes, up_passes;
};
__device__ Clamped clamped(const GateUp& in, float gate, float up) {  // NaN stays, and passes
  Clamped c{gate, up, !(gate > in.clamp), !(fabsf(up) > in.clamp)};
  if (!c.gate_passes) c.g = in.clamp;
  if (!c.up_passes) c.u = copysignf(in.clamp, up);
  return c;
}

__device__ float weight_of(const GateUp& in, std::int64_t row) {
  return in.row_weight == nullptr ? 1.0f : in.row_weight[row * in.weight_stride];
}

/// Forward's four outputs; `weight` is the row's.
template <class In>
__device__ void activate4(const GateUp& in, std::int64_t row, std::int64_t j, float weight, float y[4]) {
  const Four four = load_pairs<In>(in, row, j);
  for (int i = 0; i < 4; ++i) {
    const Clamped c = clamped(in, four.gate[i], four.up[i]);
    y[i] = weight * (c.g / (1.0f + expf(-c.g))) * c.u;
  }
}

}  // namespace
}  // namespace shoestring::swiglu::cuda
