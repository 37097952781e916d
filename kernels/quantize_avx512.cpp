// Quantisation in AVX-512. Sixty-four columns make one store; one row tile stays in registers between its amax and its
// codes. Where scales run down the rows, a band of up to 128 rows by 512 columns (256 KiB of f32) is read once from
// memory for the row codes and the column maxima, and a second time from the L2 cache for the column codes.
#include <algorithm>
#include <atomic>
#include <cstring>

#include "kernels/base/cpu.h"
#include "kernels/base/workers.h"
#include "kernels/quantize_variants.h"

// GCC 12 takes the undefined source operand inside these intrinsics for a mistake of ours (its bug 105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#include <immintrin.h>

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq")

#include "kernels/quantize_unit_avx512.h"

namespace shoestring::quantization::avx512 {
namespace {

using quantize_tile::RowTile;
using quantize_tile::Scale;

constexpr std::int64_t kBand = 512;  // columns of one work item when column maxima are kept

/// What a pass over rows writes, and how.
struct RowPass {
  TensorView values;
  TensorView scales;
  std::int64_t width = kTile;  ///< 128 or 32 columns share a scale; 0: one scale for all
  ScaleKind kind = ScaleKind::f32;
  bool given = false;   ///< the scales stand in `scales`
  bool covers = false;  ///< ... and are known to cover x, all of it finite
};

/// Columns [column, column + 128) of one row, already loaded; kGroup vectors of 16 share a scale.
template <class Payload, int kGroup>
void quantize_row(const RowPass& pass, const Unit units[2], std::int64_t row, std::int64_t column, std::int64_t count,
                  Tally& tally) {
  __m512 inverse[8];
  bool plain = !pass.given || pass.covers;
  for (int v = 0; v < 8; v += kGroup) {
    if (16 * v >= count) break;
    const std::int64_t tile = pass.width == 0 ? 0 : (column + 16 * v) / pass.width;
    Scale scale;
    std::uint32_t amax = 0;
    if (!pass.given || tally.wanted) amax = amax_of(units, v, v + kGroup, plain);
    if (pass.given) {
      scale = quantize_tile::given(read_scale(pass.scales, pass.width == 0 ? 0 : row, tile));
    } else {
      scale = quantize_tile::scale_of(amax, pass.kind, Constants<Payload>::format);
      write_scale(pass.scales, row, tile, scale.scale);
    }
    tally.amax = std::max(tally.amax, amax);
    for (int i = v; i < v + kGroup; ++i) inverse[i] = _mm512_set1_ps(scale.inverse);
  }
  auto* out = pass.values.as<std::uint8_t>() + row * pass.values.strides[0] + column;
  _mm512_mask_storeu_epi8(out, units[0].keep, encode_unit<Payload>(units[0], inverse, plain, tally));
  if (count <= 64) return;
  _mm512_mask_storeu_epi8(out + 64, units[1].keep, encode_unit<Payload>(units[1], inverse + 4, plain, tally));
}

template <class In, class Payload, int kGroup>
void quantize_rows(const QuantizeArgs& args, const RowPass& pass, std::int64_t begin, std::int64_t end) {
  Tally tally{args.counts != nullptr, {}};
  const std::int64_t columns = args.x.shape[1];
  for (std::int64_t row = begin; row < end; ++row) {
    const In* x = args.x.as<In>() + row * args.x.strides[0];
    for (std::int64_t column = 0; column < columns; column += kTile) {
      const std::int64_t count = std::min(kTile, columns - column);
      const Unit units[2] = {load_unit(x + column, count), load_unit(x + column + 64, count - 64)};
      quantize_row<Payload, kGroup>(pass, units, row, column, count, tally);
    }
  }
  tally.counts.elements = (end - begin) * columns;
  tally.flush(args.counts);
}

/// One work item where scales run down the rows: rows of one tile by up to 512 columns.
struct Band {
  RowTile rows;
  std::int64_t tile_row;
  std::int64_t column;
  std::int64_t columns;
  bool plain = true;
  alignas(64) std::uint32_t amax[kBand];  ///< finite amax bits of each column
  alignas(64) float inverse[kBand];
};

template <class In>
const In* line(const QuantizeArgs& args, const Band& band, std::int64_t row) {
  return args.x.as<In>() + (band.rows.begin + row) * args.x.strides[0] + band.column;
}

/// First read: column maxima, and the row codes when `rows` says so.
template <class In, class Payload, int kGroup>
void read_band(const QuantizeArgs& args, const RowPass* rows, Band& band, Tally& tally) {
  std::memset(band.amax, 0, sizeof(band.amax));
  for (std::int64_t row = 0; row < band.rows.count; ++row) {
    const In* x = line<In>(args, band, row);
    for (std::int64_t column = 0; column < band.columns; column += kTile) {
      const std::int64_t count = std::min(kTile, band.columns - column);
      const Unit units[2] = {load_unit(x + column, count), load_unit(x + column + 64, count - 64)};
      for (int v = 0; v < 8; ++v) {
        std::uint32_t* most = band.amax + column + 16 * v;
        _mm512_store_si512(most, _mm512_max_epi32(_mm512_load_si512(most), lanes::magnitude(units[v / 4].x[v % 4])));
      }
      if (rows != nullptr) {
        quantize_row<Payload, kGroup>(*rows, units, band.rows.begin + row, band.column + column, count, tally);
      }
    }
  }
}

/// Where a column holds NaN or infinity: its maximum over the finite elements, and no more trust in plain encoding.
template <class In>
void drop_non_finite(const QuantizeArgs& args, Band& band) {
  __m512i most = _mm512_setzero_si512();
  for (std::int64_t c = 0; c < kBand; c += 16) most = _mm512_max_epi32(most, _mm512_load_si512(band.amax + c));
  if (static_cast<std::uint32_t>(_mm512_reduce_max_epi32(most)) <= kLargestFinite) return;
  band.plain = false;
  std::memset(band.amax, 0, sizeof(band.amax));
  for (std::int64_t row = 0; row < band.rows.count; ++row) {
    const In* x = line<In>(args, band, row);
    for (std::int64_t c = 0; c < band.columns; ++c) {
      const float value = x[c];
      const std::uint32_t bits = dtype_bits::of_float(value) & quantize_tile::kMagnitude;
      if (bits <= kLargestFinite) band.amax[c] = std::max(band.amax[c], bits);
    }
  }
}

/// Scales of a band: one per column, or one per 128 columns (`width`).
template <class Payload>
void scale_band(const QuantizeArgs& args, const TensorView& scales, std::int64_t width, Band& band, Tally& tally) {
  for (std::int64_t c = 0; c < kBand; ++c) tally.amax = std::max(tally.amax, band.amax[c]);
  if (width > 1) {
    for (std::int64_t c = 0; c < kBand; c += width) {
      const std::uint32_t most = *std::max_element(band.amax + c, band.amax + c + width);
      std::fill(band.amax + c, band.amax + c + width, most);
    }
  }
  alignas(64) float scale[kBand];
  for (std::int64_t c = 0; c < kBand; c += 16) {
    __m512 lane_scale;
    __m512 lane_inverse;
    lanes::scales_of<Payload>(_mm512_load_si512(band.amax + c), args.scale_kind, lane_scale, lane_inverse);
    _mm512_store_ps(scale + c, lane_scale);
    _mm512_store_ps(band.inverse + c, lane_inverse);
  }
  for (std::int64_t c = 0; c < band.columns; c += width) {
    const std::int64_t tile_column = (band.column + c) / width;
    if (args.scales_given) {
      const Scale given = quantize_tile::given(read_scale(scales, band.tile_row, tile_column));
      std::fill(band.inverse + c, band.inverse + std::min(c + width, kBand), given.inverse);
    } else {
      write_scale(scales, band.tile_row, tile_column, scale[c]);
    }
  }
}

/// Second read: the codes of a band under its column scales, to one or two outputs.
template <class In, class Payload>
void write_band(const QuantizeArgs& args, const TensorView* outputs, int output_count, const Band& band, Tally& tally) {
  alignas(64) std::uint8_t codes[kTile][64];
  for (std::int64_t column = 0; column < band.columns; column += 64) {
    const std::int64_t count = std::min<std::int64_t>(64, band.columns - column);
    __m512 inverse[4];
    for (int v = 0; v < 4; ++v) inverse[v] = _mm512_load_ps(band.inverse + column + 16 * v);
    for (std::int64_t row = 0; row < band.rows.count; ++row) {
      const Unit unit = load_unit(line<In>(args, band, row) + column, count);
      _mm512_store_si512(codes[row], encode_unit<Payload>(unit, inverse, band.plain && !args.scales_given, tally));
    }
    for (int o = 0; o < output_count; ++o) {
      const TensorView& out = outputs[o];
      std::uint8_t* to =
          out.as<std::uint8_t>() + band.rows.begin * out.strides[0] + (band.column + column) * out.strides[1];
      if (out.strides[1] != 1) {
        store_transposed(codes, band.rows.count, count, to, out.strides[1]);
        continue;
      }
      const __mmask64 keep = keep_mask(count);
      for (std::int64_t row = 0; row < band.rows.count; ++row) {
        _mm512_mask_storeu_epi8(to + row * out.strides[0], keep, _mm512_load_si512(codes[row]));
      }
    }
  }
}

/// Largest magnitude bits of rows [begin, end); those of NaN and infinities included unless `finite_only`.
template <class In>
std::uint32_t amax_of_rows(const QuantizeArgs& args, std::int64_t begin, std::int64_t end, bool finite_only) {
  __m512i most = _mm512_setzero_si512();
  for (std::int64_t row = begin; row < end; ++row) {
    const In* x = args.x.as<In>() + row * args.x.strides[0];
    for (std::int64_t column = 0; column < args.x.shape[1]; column += 64) {
      const Unit unit = load_unit(x + column, args.x.shape[1] - column);
      for (int v = 0; v < 4; ++v) {
        const __m512i bits = lanes::magnitude(unit.x[v]);
        most = _mm512_max_epi32(most, finite_only ? lanes::finite_magnitude(bits) : bits);
      }
    }
  }
  return static_cast<std::uint32_t>(_mm512_reduce_max_epi32(most));
}

/// Rows a worker takes at once: enough elements to be worth a wake-up.
std::int64_t row_grain(const QuantizeArgs& args) { return std::max<std::int64_t>(1, 16384 / args.x.shape[1]); }

template <class In>
std::uint32_t amax_of_matrix(const QuantizeArgs& args, bool finite_only) {
  std::atomic<std::uint32_t> most{0};
  args.stream.workers().split(args.x.shape[0], row_grain(args), [&](std::int64_t begin, std::int64_t end) {
    const std::uint32_t part = amax_of_rows<In>(args, begin, end, finite_only);
    std::uint32_t seen = most;
    while (part > seen && !most.compare_exchange_weak(seen, part)) {
    }
  });
  return most;
}

/// How the row output is written: for one scale over all of x, that scale is found and stored here.
template <class In, class Payload>
RowPass row_pass(const QuantizeArgs& args) {
  RowPass pass;
  pass.values = args.row_tiles.values;
  pass.scales = args.row_tiles.scales;
  pass.width = args.row_tiles.granularity.columns;
  pass.kind = args.scale_kind;
  pass.given = args.scales_given || pass.width == 0;
  if (pass.width == 0 && !args.scales_given) {
    std::uint32_t amax = amax_of_matrix<In>(args, false);
    pass.covers = amax <= kLargestFinite;
    if (!pass.covers) amax = amax_of_matrix<In>(args, true);
    write_scale(pass.scales, 0, 0, quantize_tile::scale_of(amax, pass.kind, Constants<Payload>::format).scale);
  }
  return pass;
}

/// Work item `item` of the bands of an output whose tiles are `width` columns wide.
template <class In, class Payload, int kGroup>
void quantize_band(const QuantizeArgs& args, const RowPass* rows, std::span<const ScaledView> outputs,
                   const Segments& segments, std::int64_t item) {
  const std::int64_t columns = args.x.shape[1];
  const std::int64_t bands = (columns + kBand - 1) / kBand;
  Tally tally{args.counts != nullptr, {}};
  Band band;
  band.tile_row = item / bands;
  band.rows = segments.tile(band.tile_row);
  band.column = item % bands * kBand;
  band.columns = std::min(kBand, columns - band.column);
  read_band<In, Payload, kGroup>(args, rows, band, tally);
  drop_non_finite<In>(args, band);
  TensorView values[2];
  int count = 0;
  for (const ScaledView& output : outputs) {
    scale_band<Payload>(args, output.scales, output.granularity.columns, band, tally);
    values[count++] = output.values;
  }
  write_band<In, Payload>(args, values, count, band, tally);
  tally.counts.elements = band.rows.count * band.columns * (rows != nullptr ? 2 : 1);
  tally.flush(args.counts);
}

template <class In, class Payload, int kGroup>
void quantize_bands(const QuantizeArgs& args, const RowPass* rows, std::span<const ScaledView> outputs) {
  const Segments segments(args.segments, args.x.shape[0], outputs[0].granularity);
  const std::int64_t items = segments.tiles() * ((args.x.shape[1] + kBand - 1) / kBand);
  args.stream.workers().split(items, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t item = begin; item < end; ++item) {
      quantize_band<In, Payload, kGroup>(args, rows, outputs, segments, item);
    }
  });
}

template <class In, class Payload, int kGroup>
void quantize_grouped(const QuantizeArgs& args) {
  const bool rows = !args.row_tiles.values.empty();
  const bool columns = !args.column_tiles.values.empty();
  if (rows && args.row_tiles.granularity == kBlock128) {
    const ScaledView both[2] = {args.row_tiles, args.column_tiles};
    const bool same = columns && args.column_tiles.granularity == kBlock128;
    quantize_bands<In, Payload, kGroup>(args, nullptr, {both, same ? std::size_t{2} : std::size_t{1}});
    if (columns && !same) quantize_bands<In, Payload, kGroup>(args, nullptr, {&args.column_tiles, 1});
    return;
  }
  const RowPass pass = rows ? row_pass<In, Payload>(args) : RowPass{};
  if (columns) {
    quantize_bands<In, Payload, kGroup>(args, rows ? &pass : nullptr, {&args.column_tiles, 1});
    return;
  }
  args.stream.workers().split(args.x.shape[0], row_grain(args), [&](std::int64_t begin, std::int64_t end) {
    quantize_rows<In, Payload, kGroup>(args, pass, begin, end);
  });
}

template <class In>
void quantize_input(const QuantizeArgs& args) {
  const ScaledView& first = args.row_tiles.values.empty() ? args.column_tiles : args.row_tiles;
  const bool narrow = args.row_tiles.granularity == kRowTile32;  // two vectors of 16 share a scale, not eight
  if (first.values.dtype == DType::e4m3) {
    narrow ? quantize_grouped<In, E4M3, 2>(args) : quantize_grouped<In, E4M3, 8>(args);
  } else {
    narrow ? quantize_grouped<In, E5M2, 2>(args) : quantize_grouped<In, E5M2, 8>(args);
  }
}

}  // namespace

std::string refuses_quantize(const QuantizeArgs& args) {
  if (std::string reason = refuses_device(args); !reason.empty()) return reason;
  if (!cpu_features().avx512) return "this processor has no AVX-512";
  if (args.x.strides[1] != 1) return "the columns of x are not contiguous";
  if (!args.row_tiles.values.empty() && args.row_tiles.values.strides[1] != 1) {
    return "the columns of row_tiles are not contiguous";
  }
  const TensorView& tall = args.column_tiles.values;
  if (!tall.empty() && tall.strides[0] != 1 && tall.strides[1] != 1) return "neither dim of column_tiles is contiguous";
  if (!tall.empty() && !args.row_tiles.values.empty() && tall.dtype != args.row_tiles.values.dtype) {
    return "the two outputs differ in format";
  }
  return {};
}

void quantize(const QuantizeArgs& args) {
  args.x.dtype == DType::f32 ? quantize_input<float>(args) : quantize_input<BFloat16>(args);
}

}  // namespace shoestring::quantization::avx512

#pragma GCC pop_options
