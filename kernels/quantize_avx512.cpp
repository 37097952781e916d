// Quantisation in AVX-512, a line of up to 2048 columns at a time while it lies in the L1 cache: maxima of its tiles,
// scales of sixteen tiles at once, codes. Where scales run down the rows, a band of up to 128 rows by 512 columns is
// copied once from memory to the stack (256 KiB: it stays in the L2 cache, and rows a power of two apart do not evict
// each other there), giving row codes and column maxima on the way, then read again for the column codes.
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

constexpr std::int64_t kLine = 2048;  // columns of one line: sixteen tiles of 128
constexpr std::int64_t kBand = 512;   // columns of one work item when column maxima are kept

/// Rows a worker takes at once: enough elements to be worth a wake-up.
std::int64_t row_grain(const QuantizeArgs& args) { return std::max<std::int64_t>(1, 16384 / args.x.shape[1]); }

/// What a pass over rows writes, and how.
struct RowPass {
  TensorView values;
  TensorView scales;
  std::int64_t width = kTile;  ///< 128 or 32 columns share a scale; 0: one scale for all
  ScaleKind kind = ScaleKind::f32;
  bool given = false;   ///< the scales stand in `scales`
  bool covers = false;  ///< ... and are known to cover x, all of it finite
};

/// Maxima, scales and their inverses of the tiles of one line.
struct LineScales {
  alignas(64) std::uint32_t amax[kLine / 32];
  alignas(64) float scale[kLine / 32];
  alignas(64) float inverse[kLine / 32];
};

/// Scales of tiles [first, first + tiles) of scale row `row`, from amax or as given.
template <class Payload>
void scale_line(const RowPass& pass, std::int64_t row, std::int64_t first, std::int64_t tiles, LineScales& line) {
  if (pass.given) {
    for (std::int64_t t = 0; t < tiles; ++t) {
      const bool one = pass.width == 0;
      line.inverse[t] = quantize_tile::given(read_scale(pass.scales, one ? 0 : row, one ? 0 : first + t)).inverse;
    }
    return;
  }
  for (std::int64_t t = 0; t < tiles; t += 16) {
    __m512 scale;
    __m512 inverse;
    lanes::scales_of<Payload>(_mm512_load_si512(line.amax + t), pass.kind, scale, inverse);
    _mm512_store_ps(line.scale + t, scale);
    _mm512_store_ps(line.inverse + t, inverse);
  }
  for (std::int64_t t = 0; t < tiles; ++t) write_scale(pass.scales, row, first + t, line.scale[t]);
}

/// Columns [column, column + count) of one row; x is padded to whole tiles of 128.
template <class In, class Payload, int kWidth>
void quantize_line(const RowPass& pass, const In* x, std::int64_t row, std::int64_t column, std::int64_t count,
                   Tally& tally) {
  LineScales line;
  const std::int64_t tiles = (count + kWidth - 1) / kWidth;
  bool plain = !pass.given || pass.covers;
  if (!pass.given || tally.wanted) {
    for (std::int64_t t = 0; t < tiles; t += 16) _mm512_store_si512(line.amax + t, _mm512_setzero_si512());
    amax_of_tiles<In, kWidth, false>(x, tiles, line.amax);
    std::uint32_t most = *std::max_element(line.amax, line.amax + tiles);
    if (most > kLargestFinite) [[unlikely]] {
      plain = false;
      amax_of_tiles<In, kWidth, true>(x, tiles, line.amax);
      most = *std::max_element(line.amax, line.amax + tiles);
    }
    tally.amax = std::max(tally.amax, most);
  }
  scale_line<Payload>(pass, row, column / kWidth, tiles, line);
  std::uint8_t* out = pass.values.as<std::uint8_t>() + row * pass.values.strides[0] + column;
  if (plain) [[likely]] {
    encode_line<In, Payload, kWidth, true>(x, count, line.inverse, out, tally);
  } else {
    encode_line<In, Payload, kWidth, false>(x, count, line.inverse, out, tally);
  }
}

/// x itself when it fills whole tiles, otherwise its copy in `room`, padded with zeros.
template <class In>
const In* padded(const In* x, std::int64_t count, In* room) {
  if (count % kTile == 0) return x;
  const std::int64_t whole = (count + kTile - 1) / kTile * kTile;
  std::memcpy(room, x, static_cast<std::size_t>(count) * sizeof(In));
  std::memset(static_cast<void*>(room + count), 0, static_cast<std::size_t>(whole - count) * sizeof(In));
  return room;
}

template <class In, class Payload, int kWidth>
void quantize_rows(const QuantizeArgs& args, const RowPass& pass, std::int64_t begin, std::int64_t end) {
  alignas(64) In room[kLine];
  Tally tally{args.counts != nullptr, {}};
  const std::int64_t columns = args.x.shape[1];
  for (std::int64_t row = begin; row < end; ++row) {
    const In* x = args.x.as<In>() + row * args.x.strides[0];
    for (std::int64_t column = 0; column < columns; column += kLine) {
      const std::int64_t count = std::min(kLine, columns - column);
      quantize_line<In, Payload, kWidth>(pass, padded(x + column, count, room), row, column, count, tally);
    }
  }
  tally.counts.elements = (end - begin) * columns;
  tally.flush(args.counts);
}

/// One work item where scales run down the rows: the rows of one tile by up to 512 columns.
template <class In>
struct Band {
  RowTile rows;
  std::int64_t tile_row = 0;
  std::int64_t column = 0;
  std::int64_t columns = 0;
  bool plain = true;
  alignas(64) std::uint32_t amax[kBand];  ///< finite amax bits of each column
  alignas(64) float inverse[kBand];
  alignas(64) In x[kTile][kBand];
};

/// First read: a copy of x, column maxima, and the row codes when `rows` says so.
template <class In, class Payload, int kWidth>
void read_band(const QuantizeArgs& args, const RowPass* rows, Band<In>& band, Tally& tally) {
  std::memset(band.amax, 0, sizeof(band.amax));
  for (std::int64_t r = 0; r < band.rows.count; ++r) {
    const In* x = args.x.as<In>() + (band.rows.begin + r) * args.x.strides[0] + band.column;
    In* copy = band.x[r];
    std::memcpy(copy, x, static_cast<std::size_t>(band.columns) * sizeof(In));
    if (band.columns < kBand) {
      std::memset(static_cast<void*>(copy + band.columns), 0,
                  static_cast<std::size_t>(kBand - band.columns) * sizeof(In));
    }
    for (std::int64_t c = 0; c < kBand; c += 16) {
      const __m512i bits = lanes::magnitude(lanes::load(copy + c));
      _mm512_store_si512(band.amax + c, _mm512_max_epi32(_mm512_load_si512(band.amax + c), bits));
    }
    if (rows == nullptr) continue;
    quantize_line<In, Payload, kWidth>(*rows, copy, band.rows.begin + r, band.column, band.columns, tally);
  }
  __m512i most = _mm512_setzero_si512();
  for (std::int64_t c = 0; c < kBand; c += 16) most = _mm512_max_epi32(most, _mm512_load_si512(band.amax + c));
  band.plain = static_cast<std::uint32_t>(_mm512_reduce_max_epi32(most)) <= kLargestFinite;
  if (band.plain) return;
  std::memset(band.amax, 0, sizeof(band.amax));  // NaN or infinity somewhere: maxima of the finite elements
  for (std::int64_t r = 0; r < band.rows.count; ++r) {
    for (std::int64_t c = 0; c < kBand; c += 16) {
      const __m512i bits = lanes::finite_magnitude(lanes::magnitude(lanes::load(band.x[r] + c)));
      _mm512_store_si512(band.amax + c, _mm512_max_epi32(_mm512_load_si512(band.amax + c), bits));
    }
  }
}

/// Scales of a band: one per column, or one per `width` columns.
template <class In, class Payload>
void scale_band(const QuantizeArgs& args, const TensorView& scales, std::int64_t width, Band<In>& band, Tally& tally) {
  tally.amax = std::max(tally.amax, *std::max_element(band.amax, band.amax + kBand));
  for (std::int64_t c = 0; width > 1 && c < kBand; c += width) {
    std::fill(band.amax + c, band.amax + c + width, *std::max_element(band.amax + c, band.amax + c + width));
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
      std::fill(band.inverse + c, band.inverse + c + width, given.inverse);
    } else {
      write_scale(scales, band.tile_row, tile_column, scale[c]);
    }
  }
}

/// Second read: the codes of a band under its column scales, to one or two outputs.
template <class In, class Payload>
void write_band(const QuantizeArgs& args, std::span<const TensorView> outputs, const Band<In>& band, Tally& tally) {
  constexpr std::int64_t kLines = 64;  // one cache line of a transposed output
  alignas(64) std::uint8_t codes[kLines][kBand];
  const bool plain = band.plain && !args.scales_given;
  for (std::int64_t first = 0; first < band.rows.count; first += kLines) {
    const std::int64_t lines = std::min(kLines, band.rows.count - first);
    for (std::int64_t r = 0; r < lines; ++r) {
      const In* x = band.x[first + r];
      plain ? encode_line<In, Payload, 1, true>(x, band.columns, band.inverse, codes[r], tally)
            : encode_line<In, Payload, 1, false>(x, band.columns, band.inverse, codes[r], tally);
    }
    for (const TensorView& out : outputs) {
      const Strides& s = out.strides;
      std::uint8_t* to = out.as<std::uint8_t>() + (band.rows.begin + first) * s[0] + band.column * s[1];
      if (s[1] != 1) {
        store_transposed(codes[0], kBand, lines, band.columns, to, s[1]);
        continue;
      }
      for (std::int64_t r = 0; r < lines; ++r) {
        std::memcpy(to + r * s[0], codes[r], static_cast<std::size_t>(band.columns));
      }
    }
  }
}

/// Largest magnitude bits of all of x; those of NaN and infinities included unless kFiniteOnly.
template <class In, bool kFiniteOnly>
std::uint32_t amax_of_matrix(const QuantizeArgs& args) {
  std::atomic<std::uint32_t> most{0};
  args.stream.workers().split(args.x.shape[0], row_grain(args), [&](std::int64_t begin, std::int64_t end) {
    alignas(64) In room[kLine];
    alignas(64) std::uint32_t amax[kLine / kTile];
    std::uint32_t part = 0;
    for (std::int64_t row = begin; row < end; ++row) {
      for (std::int64_t column = 0; column < args.x.shape[1]; column += kLine) {
        const std::int64_t count = std::min(kLine, args.x.shape[1] - column);
        const In* x = padded(args.x.as<In>() + row * args.x.strides[0] + column, count, room);
        const std::int64_t tiles = (count + kTile - 1) / kTile;
        amax_of_tiles<In, kTile, kFiniteOnly>(x, tiles, amax);
        part = std::max(part, *std::max_element(amax, amax + tiles));
      }
    }
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
    std::uint32_t amax = amax_of_matrix<In, false>(args);
    pass.covers = amax <= kLargestFinite;
    if (!pass.covers) amax = amax_of_matrix<In, true>(args);
    write_scale(pass.scales, 0, 0, quantize_tile::scale_of(amax, pass.kind, Constants<Payload>::format).scale);
  }
  return pass;
}

/// Work item `item` of the bands of outputs that share their tiles.
template <class In, class Payload, int kWidth>
void quantize_band(const QuantizeArgs& args, const RowPass* rows, std::span<const ScaledView> outputs,
                   const Segments& segments, std::int64_t item) {
  const std::int64_t columns = args.x.shape[1];
  const std::int64_t bands = (columns + kBand - 1) / kBand;
  Tally tally{args.counts != nullptr, {}};
  Band<In> band;
  band.tile_row = item / bands;
  band.rows = segments.tile(band.tile_row);
  band.column = item % bands * kBand;
  band.columns = std::min(kBand, columns - band.column);
  read_band<In, Payload, kWidth>(args, rows, band, tally);
  TensorView values[2];
  std::size_t count = 0;
  for (const ScaledView& output : outputs) {
    scale_band<In, Payload>(args, output.scales, output.granularity.columns, band, tally);
    values[count++] = output.values;
  }
  write_band<In, Payload>(args, {values, count}, band, tally);
  tally.counts.elements = band.rows.count * band.columns * (rows != nullptr ? 2 : 1);
  tally.flush(args.counts);
}

template <class In, class Payload, int kWidth>
void quantize_bands(const QuantizeArgs& args, const RowPass* rows, std::span<const ScaledView> outputs) {
  const Segments segments(args.segments, args.x.shape[0], outputs[0].granularity);
  const std::int64_t items = segments.tiles() * ((args.x.shape[1] + kBand - 1) / kBand);
  args.stream.workers().split(items, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t item = begin; item < end; ++item) {
      quantize_band<In, Payload, kWidth>(args, rows, outputs, segments, item);
    }
  });
}

template <class In, class Payload, int kWidth>
void quantize_outputs(const QuantizeArgs& args) {
  const bool rows = !args.row_tiles.values.empty();
  const bool columns = !args.column_tiles.values.empty();
  if (rows && args.row_tiles.granularity == kBlock128) {
    const ScaledView both[2] = {args.row_tiles, args.column_tiles};
    const bool same = columns && args.column_tiles.granularity == kBlock128;
    quantize_bands<In, Payload, kWidth>(args, nullptr, {both, same ? std::size_t{2} : std::size_t{1}});
    if (columns && !same) quantize_bands<In, Payload, kWidth>(args, nullptr, {&args.column_tiles, 1});
    return;
  }
  const RowPass pass = rows ? row_pass<In, Payload>(args) : RowPass{};
  if (columns) {
    quantize_bands<In, Payload, kWidth>(args, rows ? &pass : nullptr, {&args.column_tiles, 1});
    return;
  }
  args.stream.workers().split(args.x.shape[0], row_grain(args), [&](std::int64_t begin, std::int64_t end) {
    quantize_rows<In, Payload, kWidth>(args, pass, begin, end);
  });
}

template <class In>
void quantize_input(const QuantizeArgs& args) {
  const ScaledView& first = args.row_tiles.values.empty() ? args.column_tiles : args.row_tiles;
  const bool narrow = args.row_tiles.granularity == kRowTile32;
  if (first.values.dtype == DType::e4m3) {
    narrow ? quantize_outputs<In, E4M3, 32>(args) : quantize_outputs<In, E4M3, 128>(args);
  } else {
    narrow ? quantize_outputs<In, E5M2, 32>(args) : quantize_outputs<In, E5M2, 128>(args);
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
