// What the variants of quantize and dequantize share. Not for their callers: see quantize.h.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>

#include "kernels/quantize.h"
#include "kernels/quantize_tile.h"

namespace shoestring::quantization {

/// The row tiles of one output: which rows share scale row `index`.
class Segments {
 public:
  Segments(std::span<const std::int64_t> given, std::int64_t rows, Granularity granularity);
  Segments(const Segments&) = delete;
  Segments& operator=(const Segments&) = delete;

  std::int64_t tiles() const { return tiles_; }
  std::int64_t tile_rows() const { return tile_rows_; }
  std::span<const std::int64_t> offsets() const { return {offsets_, static_cast<std::size_t>(count_) + 1}; }
  quantize_tile::RowTile tile(std::int64_t index) const {
    return quantize_tile::row_tile(index, tile_rows_, offsets_, count_);
  }

 private:
  std::array<std::int64_t, 2> whole_;  // the offsets when there is one segment
  const std::int64_t* offsets_ = nullptr;
  int count_ = 0;
  std::int64_t tile_rows_ = 0;
  std::int64_t tiles_ = 0;
};

inline float read_scale(const ConstTensorView& scales, std::int64_t row, std::int64_t column) {
  const std::int64_t at = row * scales.strides[0] + column * scales.strides[1];
  return scales.dtype == DType::e8m0 ? static_cast<float>(scales.as<E8M0>()[at]) : scales.as<float>()[at];
}

inline void write_scale(const TensorView& scales, std::int64_t row, std::int64_t column, float scale) {
  const std::int64_t at = row * scales.strides[0] + column * scales.strides[1];
  if (scales.dtype == DType::e8m0) {
    scales.as<E8M0>()[at] = E8M0(scale);
  } else {
    scales.as<float>()[at] = scale;
  }
}

/// Adds a worker's part to the caller's counts, if wanted.
void add(QuantizeCounts* counts, const QuantizeCounts& part);

/// Reason of a CPU row for tensors elsewhere.
std::string refuses_device(const QuantizeArgs& args);
std::string refuses_device(const DequantizeArgs& args);

namespace avx512 {
std::string refuses_quantize(const QuantizeArgs& args);
void quantize(const QuantizeArgs& args);
}  // namespace avx512

namespace simd {
std::string refuses_quantize(const QuantizeArgs& args);
void quantize(const QuantizeArgs& args);
std::string refuses_dequantize(const DequantizeArgs& args);
void dequantize(const DequantizeArgs& args);
}  // namespace simd

#if SHOESTRING_CUDA
namespace cuda {
std::string refuses_quantize(const QuantizeArgs& args);
void quantize(const QuantizeArgs& args);
std::string refuses_dequantize(const DequantizeArgs& args);
void dequantize(const DequantizeArgs& args);
}  // namespace cuda
#endif

}  // namespace shoestring::quantization
