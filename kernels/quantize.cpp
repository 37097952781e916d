#include "kernels/quantize.h"

#include <algorithm>
#include <array>
#include <mutex>

#include "kernels/base/check.h"
#include "kernels/base/workers.h"
#include "kernels/quantize_blocks.h"
#include "kernels/quantize_tile.h"
#include "kernels/quantize_variants.h"

namespace shoestring {
namespace {

using quantize_tile::Format;
using quantize_tile::RowTile;
using quantize_tile::Scale;

bool is_payload(DType dtype) { return dtype == DType::e4m3 || dtype == DType::e5m2; }
bool is_input(DType dtype) { return dtype == DType::f32 || dtype == DType::bf16; }

void check_segments(std::span<const std::int64_t> segments, std::int64_t rows) {
  if (segments.empty()) return;
  check(segments.size() >= 2 && segments.front() == 0 && segments.back() == rows,
        "segments must run from 0 to the {} rows, not from {} to {}", rows, segments.front(), segments.back());
  check(std::is_sorted(segments.begin(), segments.end()), "segment offsets must not decrease");
}

template <class View>
void check_scaled(const char* what, const BasicScaledView<View>& view, const Shape& shape,
                  std::span<const std::int64_t> segments, Device device) {
  check(is_payload(view.values.dtype), "{} must be e4m3 or e5m2, not {}", what, name(view.values.dtype));
  check(view.values.shape == shape, "{} is {}, x is {}", what, view.values, shape);
  const Shape tiles = tile_scales_shape(shape[0], shape[1], view.granularity, segments);
  check(view.scales.shape == tiles || shape.elements() == 0, "the scales of {} are {}, but its tiles make {}", what,
        view.scales, tiles);
  check(view.scales.dtype == DType::f32 || view.scales.dtype == DType::e8m0, "the scales of {} must be f32 or e8m0",
        what);
  check(view.values.device == device && view.scales.device == device, "{} is not on {}", what, to_string(device));
}

void check_args(const DequantizeArgs& args) {
  check(is_input(args.y.dtype) && args.y.shape.rank() == 2, "y must be an f32 or bf16 matrix, not {}", args.y);
  check(args.y.device == args.stream.device(), "y is on {}, the stream on {}", to_string(args.y.device),
        to_string(args.stream.device()));
  check_segments(args.segments, args.y.shape[0]);
  check_scaled("x", args.x, args.y.shape, args.segments, args.y.device);
}

}  // namespace

Shape tile_scales_shape(std::int64_t rows, std::int64_t columns, Granularity granularity,
                        std::span<const std::int64_t> segments) {
  Shape shape = scales_shape(rows, columns, granularity);
  if (granularity.rows <= 1 || segments.empty()) return shape;
  shape[0] = 0;
  for (std::size_t i = 0; i + 1 < segments.size(); ++i) {
    shape[0] += (segments[i + 1] - segments[i] + granularity.rows - 1) / granularity.rows;
  }
  return shape;
}

namespace quantization {

void check_arguments(const QuantizeArgs& args) {
  check(is_input(args.x.dtype) && args.x.shape.rank() == 2, "x must be an f32 or bf16 matrix, not {}", args.x);
  check(args.x.device == args.stream.device(), "x is on {}, the stream on {}", to_string(args.x.device),
        to_string(args.stream.device()));
  check_segments(args.segments, args.x.shape[0]);
  const bool rows = !args.row_tiles.values.empty();
  const bool columns = !args.column_tiles.values.empty();
  check(rows || columns || args.x.elements() == 0, "quantize was given no output");
  const DType scales = args.scale_kind == ScaleKind::e8m0 ? DType::e8m0 : DType::f32;
  if (rows) {
    const Granularity g = args.row_tiles.granularity;
    check(g == kRowTile128 || g == kRowTile32 || g == kBlock128 || g == kPerTensor,
          "row tiles of {}x{} are not supported", g.rows, g.columns);
    check_scaled("row_tiles", args.row_tiles, args.x.shape, args.segments, args.x.device);
    check(args.row_tiles.scales.dtype == scales, "row_tiles has scales of the wrong dtype for its scale kind");
  }
  if (columns) {
    const Granularity g = args.column_tiles.granularity;
    check(g == kColumnTile128 || g == kColumnTile32 || (g == kBlock128 && rows && args.row_tiles.granularity == g),
          "column tiles of {}x{} are not supported here", g.rows, g.columns);
    check_scaled("column_tiles", args.column_tiles, args.x.shape, args.segments, args.x.device);
    check(args.column_tiles.scales.dtype == scales, "column_tiles has scales of the wrong dtype for its scale kind");
  }
}

Segments::Segments(std::span<const std::int64_t> given, std::int64_t rows, Granularity granularity) : whole_{0, rows} {
  const bool cut = granularity.rows > 1 && !given.empty();  // lower tiles, and one scale for all, know no segments
  offsets_ = cut ? given.data() : whole_.data();
  count_ = cut ? static_cast<int>(given.size()) - 1 : 1;
  tile_rows_ = granularity.rows == 0 ? std::max<std::int64_t>(rows, 1) : granularity.rows;
  if (granularity.rows > 1) {
    tiles_ = tile_scales_shape(rows, 1, granularity, given)[0];
  } else {
    tiles_ = (rows + tile_rows_ - 1) / tile_rows_;
  }
}

void add(QuantizeCounts* counts, const QuantizeCounts& part) {
  static std::mutex mutex;  // sums of integers and a maximum: the order of workers leaves no trace
  if (counts == nullptr) return;
  const std::scoped_lock lock(mutex);
  counts->elements += part.elements;
  counts->saturated += part.saturated;
  counts->underflowed += part.underflowed;
  counts->non_finite += part.non_finite;
  counts->amax = std::max(counts->amax, part.amax);
}

std::string refuses_device(const QuantizeArgs& args) {
  return args.x.device.kind == DeviceKind::cpu ? "" : "the tensors are on " + to_string(args.x.device);
}
std::string refuses_device(const DequantizeArgs& args) {
  return args.y.device.kind == DeviceKind::cpu ? "" : "the tensors are on " + to_string(args.y.device);
}

}  // namespace quantization

namespace quantization::reference {
namespace {

/// Calls body(In{}, Payload{}) with the element types of the two formats.
template <class Body>
void with_types(DType input, DType payload, const Body& body) {
  if (input == DType::f32) {
    payload == DType::e4m3 ? body(float{}, E4M3{}) : body(float{}, E5M2{});
  } else {
    payload == DType::e4m3 ? body(BFloat16{}, E4M3{}) : body(BFloat16{}, E5M2{});
  }
}

struct Tile {
  RowTile rows;
  std::int64_t column;
  std::int64_t columns;
  std::int64_t scale_row;
  std::int64_t scale_column;
};

template <class In, class Payload>
void quantize_tile_of(const QuantizeArgs& args, const ScaledView& out, const Tile& tile, QuantizeCounts& counts) {
  const Format format = out.values.dtype == DType::e4m3 ? quantize_tile::kE4M3 : quantize_tile::kE5M2;
  const auto each = [&](const auto& body) {
    for (std::int64_t r = tile.rows.begin; r < tile.rows.begin + tile.rows.count; ++r) {
      for (std::int64_t c = tile.column; c < tile.column + tile.columns; ++c) {
        body(static_cast<float>(args.x.as<In>()[r * args.x.strides[0] + c * args.x.strides[1]]),
             out.values.as<Payload>()[r * out.values.strides[0] + c * out.values.strides[1]]);
      }
    }
  };
  std::uint32_t amax = 0;
  each([&](float x, Payload&) {
    if (quantize_tile::finite(x)) amax = std::max(amax, dtype_bits::of_float(x) & quantize_tile::kMagnitude);
  });
  Scale scale;
  if (args.scales_given) {
    scale = quantize_tile::given(read_scale(out.scales, tile.scale_row, tile.scale_column));
  } else {
    scale = quantize_tile::scale_of(amax, args.scale_kind, format);
    write_scale(out.scales, tile.scale_row, tile.scale_column, scale.scale);
  }
  each([&](float x, Payload& code) {
    code.bits = quantize_tile::encode<Payload>(x, scale.inverse);
    counts.elements += 1;
    counts.saturated += quantize_tile::saturates(x, scale.inverse, format) ? 1 : 0;
    counts.underflowed += quantize_tile::underflows(x, scale.inverse, format) ? 1 : 0;
    counts.non_finite += quantize_tile::finite(x) ? 0 : 1;
  });
  counts.amax = std::max(counts.amax, dtype_bits::to_float(amax));
}

void quantize_output(const QuantizeArgs& args, const ScaledView& out, QuantizeCounts* total) {
  const Segments segments(args.segments, args.x.shape[0], out.granularity);
  const std::int64_t columns = args.x.shape[1];
  const std::int64_t width = out.granularity.columns == 0 ? columns : out.granularity.columns;
  with_types(args.x.dtype, out.values.dtype, [&](auto input, auto payload) {
    args.stream.workers().each(segments.tiles(), [&](std::int64_t index) {
      QuantizeCounts counts;
      for (std::int64_t column = 0; column < columns; column += width) {
        const Tile tile{segments.tile(index), column, std::min(width, columns - column), index, column / width};
        quantize_tile_of<decltype(input), decltype(payload)>(args, out, tile, counts);
      }
      add(total, counts);
    });
  });
}

}  // namespace

void quantize(const QuantizeArgs& args) {
  if (!args.row_tiles.values.empty()) quantize_output(args, args.row_tiles, args.counts);
  const bool again = args.column_tiles.granularity == kBlock128;
  if (!args.column_tiles.values.empty()) quantize_output(args, args.column_tiles, again ? nullptr : args.counts);
}

void dequantize(const DequantizeArgs& args) {
  const Segments segments(args.segments, args.y.shape[0], args.x.granularity);
  const std::int64_t columns = args.y.shape[1];
  const std::int64_t width = args.x.granularity.columns == 0 ? columns : args.x.granularity.columns;
  with_types(args.y.dtype, args.x.values.dtype, [&](auto output, auto payload) {
    args.stream.workers().each(segments.tiles(), [&](std::int64_t index) {
      const RowTile rows = segments.tile(index);
      for (std::int64_t r = rows.begin; r < rows.begin + rows.count; ++r) {
        for (std::int64_t c = 0; c < columns; ++c) {
          const ConstTensorView& values = args.x.values;
          const float value = values.as<decltype(payload)>()[r * values.strides[0] + c * values.strides[1]];
          const float scale = read_scale(args.x.scales, index, c / width);
          args.y.as<decltype(output)>()[r * args.y.strides[0] + c * args.y.strides[1]] =
              decltype(output)(quantize_tile::decode(value, scale));
        }
      }
    });
  });
}

}  // namespace quantization::reference

namespace {

constexpr std::array kQuantize = std::to_array<Variant<QuantizeArgs>>({
#if SHOESTRING_CUDA
  {"cuda", quantization::cuda::refuses_quantize, quantization::cuda::quantize},
#endif
#if defined(__x86_64__)
      {"avx512", quantization::avx512::refuses_quantize, quantization::avx512::quantize},
#endif
      {"simd", quantization::simd::refuses_quantize, quantization::simd::quantize},
      {"reference", quantization::refuses_device, quantization::reference::quantize},
});

constexpr std::array kDequantize = std::to_array<Variant<DequantizeArgs>>({
#if SHOESTRING_CUDA
  {"cuda", quantization::cuda::refuses_dequantize, quantization::cuda::dequantize},
#endif
#if defined(__x86_64__)
#endif
      {"simd", quantization::simd::refuses_dequantize, quantization::simd::dequantize},
      {"reference", quantization::refuses_device, quantization::reference::dequantize},
});

}  // namespace

std::span<const Variant<QuantizeArgs>> quantize_variants() { return kQuantize; }
std::span<const Variant<DequantizeArgs>> dequantize_variants() { return kDequantize; }

void quantize(const QuantizeArgs& args) {
  quantization::check_arguments(args);
  if (args.x.elements() == 0) return;
  choose("quantize", kQuantize, args).run(args);
}

void dequantize(const DequantizeArgs& args) {
  check_args(args);
  if (args.y.elements() == 0) return;
  choose("dequantize", kDequantize, args).run(args);
}

}  // namespace shoestring
