// The host side of the CUDA rows of quantize and dequantize: arguments to kernel parameters.
#include <string>

#include "kernels/base/cuda_check.h"
#include "kernels/cuda_refusals.h"
#include "kernels/quantize_cuda.h"

namespace shoestring::quantization::cuda {
namespace {

Output output_of(const ScaledView& view) {
  if (view.values.empty()) return {};
  return {view.values.as<std::uint8_t>(), view.values.strides[0], view.values.strides[1], view.scales.data,
          view.scales.strides[0],         view.scales.strides[1]};
}

Cut cut_of(const Segments& segments, std::int64_t tile_rows) {
  Cut cut{static_cast<int>(tile_rows), static_cast<int>(segments.offsets().size()) - 1, {}, {}};
  for (std::size_t i = 0; i < segments.offsets().size(); ++i) {
    cut.offsets[i] = static_cast<int>(segments.offsets()[i]);
    if (i == 0) continue;
    const int tiles = (cut.offsets[i] - cut.offsets[i - 1] + cut.tile_rows - 1) / cut.tile_rows;
    cut.first_tile[i] = cut.first_tile[i - 1] + tiles;
  }
  return cut;
}

bool aligned(const void* data, std::int64_t bytes) { return reinterpret_cast<std::uintptr_t>(data) % bytes == 0; }

bool can_store_four(const Output& out) {
  return out.values == nullptr || out.column_stride != 1 || (aligned(out.values, 4) && out.row_stride % 4 == 0);
}

RowScales row_scales_of(const QuantizeArgs& args) {
  const Granularity g = args.row_tiles.granularity;
  if (args.row_tiles.values.empty()) return RowScales::absent;
  if (g == kBlock128) return RowScales::block128;
  if (g == kPerTensor) return RowScales::uniform;
  return g == kRowTile32 ? RowScales::tile32 : RowScales::tile128;
}

}  // namespace

Parameters parameters_of(const QuantizeArgs& args) {
  Parameters p{};
  p.x = args.x.data;
  p.row_stride = args.x.strides[0];
  p.column_stride = args.x.strides[1];
  p.rows = args.x.shape[0];
  p.columns = args.x.shape[1];
  p.tile_columns = static_cast<int>((p.columns + kColumns - 1) / kColumns);
  p.row_scales = row_scales_of(args);
  p.by_row = output_of(args.row_tiles);
  p.by_column = output_of(args.column_tiles);
  p.kind = args.scale_kind;
  p.given = args.scales_given;
  p.e8m0 = args.scale_kind == ScaleKind::e8m0;
  p.vector_load =
      p.column_stride == 1 && p.columns % 4 == 0 && p.row_stride % 4 == 0 && aligned(p.x, 4 * size_bytes(args.x.dtype));
  p.vector_store = p.columns % 4 == 0 && can_store_four(p.by_row) && can_store_four(p.by_column);
  p.counts = args.counts;
  const ScaledView& tall = args.column_tiles.values.empty() ? args.row_tiles : args.column_tiles;
  const Segments segments(args.segments, p.rows, tall.granularity);
  const bool whole = tall.granularity.rows <= 1;  // one segment: any cut of the rows will do
  p.cut = cut_of(segments, whole ? kThreads / 32 * kRowsPerWarp : tall.granularity.rows);
  return p;
}

namespace {

void launch(const QuantizeArgs& args) {
  const ScaledView& first = args.row_tiles.values.empty() ? args.column_tiles : args.row_tiles;
  launch_quantize(parameters_of(args), args.x.dtype, first.values.dtype, cuda_stream(args.stream));
}

std::string refuses_segments(std::span<const std::int64_t> segments, std::int64_t rows) {
  if (rows > INT32_MAX) return "more than 2^31 - 1 rows";
  if (segments.size() > kMaxSegments + 1) return "more than " + std::to_string(kMaxSegments) + " segments";
  return {};
}

}  // namespace

std::string refuses_quantize(const QuantizeArgs& args) {
  const ScaledView& rows = args.row_tiles;
  const ScaledView& columns = args.column_tiles;
  std::string reason = needs_cuda(args.stream, {args.x, rows.values, rows.scales, columns.values, columns.scales});
  if (reason.empty()) reason = refuses_segments(args.segments, args.x.shape[0]);
  if (!reason.empty()) return reason;
  if (args.counts != nullptr && !reaches(args.stream.device(), args.counts)) {
    return "the device cannot reach the counts: they must stand in its memory, or in pinned memory";
  }
  if (args.row_tiles.granularity == kPerTensor && !args.row_tiles.values.empty() && !args.scales_given &&
      args.scale_kind == ScaleKind::e8m0) {
    return "one E8M0 scale for a whole matrix";
  }
  if (!args.row_tiles.values.empty() && !args.column_tiles.values.empty() &&
      args.row_tiles.values.dtype != args.column_tiles.values.dtype) {
    return "the two outputs differ in format";
  }
  return {};
}

void quantize(const QuantizeArgs& args) {
  const bool two_reads = !args.row_tiles.values.empty() && args.row_tiles.granularity == kBlock128 &&
                         !args.column_tiles.values.empty() && args.column_tiles.granularity != kBlock128;
  if (!two_reads) return launch(args);
  QuantizeArgs part = args;
  part.column_tiles = {};
  launch(part);
  part.column_tiles = args.column_tiles;
  part.row_tiles = {};
  launch(part);
}

std::string refuses_dequantize(const DequantizeArgs& args) {
  const std::string reason = needs_cuda(args.stream, {args.y, args.x.values, args.x.scales});
  return reason.empty() ? refuses_segments(args.segments, args.y.shape[0]) : reason;
}

void dequantize(const DequantizeArgs& args) {
  const Segments segments(args.segments, args.y.shape[0], args.x.granularity);
  DequantizeParameters p{};
  p.y = args.y.data;
  p.row_stride = args.y.strides[0];
  p.column_stride = args.y.strides[1];
  p.columns = args.y.shape[1];
  p.width = args.x.granularity.columns == 0 ? p.columns : args.x.granularity.columns;
  const ConstScaledView& x = args.x;
  p.x = {const_cast<std::uint8_t*>(x.values.as<std::uint8_t>()),
         x.values.strides[0],
         x.values.strides[1],
         const_cast<void*>(x.scales.data),
         x.scales.strides[0],
         x.scales.strides[1]};
  p.e8m0 = args.x.scales.dtype == DType::e8m0;
  p.cut = cut_of(segments, segments.tile_rows());
  const auto aligned_rows = [](const void* data, std::int64_t stride, std::int64_t bytes) {
    return aligned(data, 4 * bytes) && stride % 4 == 0;
  };
  p.vectors = p.x.column_stride == 1 && p.column_stride == 1 && p.columns % 4 == 0 && p.width % 4 == 0 &&
              aligned_rows(p.x.values, p.x.row_stride, 1) && aligned_rows(p.y, p.row_stride, size_bytes(args.y.dtype));
  launch_dequantize(p, args.y.dtype, args.x.values.dtype, cuda_stream(args.stream));
}

}  // namespace shoestring::quantization::cuda
