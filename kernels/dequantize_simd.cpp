// Dequantisation in vectors: FP8 to half (exact, by shifting), half to single, one multiplication. Compiled once for
// each instruction set.
#include <algorithm>

#include "kernels/base/workers.h"
#include "kernels/cpu_refusals.h"
#include "kernels/quantize_variants.h"

#include "kernels/simd_target.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/dequantize_simd.cpp"
#include <hwy/foreach_target.h>

#include "kernels/quantize_lanes_simd.h"

HWY_BEFORE_NAMESPACE();
namespace shoestring::quantization::HWY_NAMESPACE {
namespace {

using namespace shoestring::HWY_NAMESPACE::quantize_lanes;

/// The scales of sixteen columns from `column` on, each with its own.
Floats column_scales(const ConstTensorView& scales, std::int64_t row, std::int64_t column, First lanes) {
  if (scales.dtype == DType::f32 && scales.strides[1] == 1) {
    return load(scales.as<float>() + row * scales.strides[0] + column, lanes);
  }
  float room[kLanes] = {};
  for (std::int64_t i = 0; i < std::min(kLanes, lanes.count); ++i) room[i] = read_scale(scales, row, column + i);
  return load(room);
}

template <class Out, class Payload>
void dequantize_row(const DequantizeArgs& args, std::int64_t row, std::int64_t tile_row) {
  const ConstScaledView& x = args.x;
  const std::int64_t columns = args.y.shape[1];
  const std::int64_t width = x.granularity.columns == 0 ? columns : x.granularity.columns;
  const auto* codes = x.values.as<std::uint8_t>() + row * x.values.strides[0];
  auto* y = args.y.as<Out>() + row * args.y.strides[0];
  if (width == 1) {
    for (std::int64_t c = 0; c < columns; c += kLanes) {
      const First lanes = first(columns - c);
      store(y + c, decode<Payload>(codes + c, column_scales(x.scales, tile_row, c, lanes), lanes), lanes);
    }
    return;
  }
  for (std::int64_t tile = 0; tile < columns; tile += width) {
    const Floats scale = broadcast(read_scale(x.scales, tile_row, tile / width));
    const std::int64_t end = std::min(columns, tile + width);
    for (std::int64_t c = tile; c < end; c += kLanes) {
      const First lanes = first(end - c);
      store(y + c, decode<Payload>(codes + c, scale, lanes), lanes);
    }
  }
}

template <class Out, class Payload>
void dequantize_rows(const DequantizeArgs& args, quantize_tile::RowTile rows, std::int64_t tile_row) {
  for (std::int64_t row = rows.begin; row < rows.begin + rows.count; ++row) {
    dequantize_row<Out, Payload>(args, row, tile_row);
  }
}

}  // namespace

/// Rows that share scale row `tile_row`.
void dequantize(const DequantizeArgs& args, quantize_tile::RowTile rows, std::int64_t tile_row) {
  const bool e4m3 = args.x.values.dtype == DType::e4m3;
  if (args.y.dtype == DType::f32) {
    e4m3 ? dequantize_rows<float, E4M3>(args, rows, tile_row) : dequantize_rows<float, E5M2>(args, rows, tile_row);
  } else {
    e4m3 ? dequantize_rows<BFloat16, E4M3>(args, rows, tile_row)
         : dequantize_rows<BFloat16, E5M2>(args, rows, tile_row);
  }
}

}  // namespace shoestring::quantization::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace shoestring::quantization::simd {

std::string refuses_dequantize(const DequantizeArgs& args) {
  if (std::string reason = refuses_device(args); !reason.empty()) return reason;
  if (std::string reason = needs_simd(args, args.y.dtype); !reason.empty()) return reason;
  if (args.x.values.strides[1] != 1 || args.y.strides[1] != 1) return "the columns are not contiguous";
  return {};
}

void dequantize(const DequantizeArgs& args) {
  const auto rows = SHOESTRING_SIMD(dequantize);
  const Segments segments(args.segments, args.y.shape[0], args.x.granularity);
  const std::int64_t grain = std::max<std::int64_t>(1, 16384 / args.y.shape[1]);
  if (segments.tiles() == 1) {  // one scale row for all
    args.stream.workers().split(args.y.shape[0], grain, [&](std::int64_t begin, std::int64_t end) {
      rows(args, {begin, end - begin}, 0);
    });
    return;
  }
  args.stream.workers().split(segments.tiles(), std::max<std::int64_t>(1, grain / segments.tile_rows()),
                              [&](std::int64_t begin, std::int64_t end) {
                                for (std::int64_t i = begin; i < end; ++i) rows(args, segments.tile(i), i);
                              });
}

}  // namespace shoestring::quantization::simd
#endif
