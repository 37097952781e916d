// Quantisation in vectors; row codes stand in quantize_rows_simd.h. Where scales run down the rows, a band of up to 128
// rows by 256 columns is copied once from memory to the stack (it stays in the L2 cache, and rows a power of two apart
// do not evict each other there), giving row codes and column maxima on the way, then read again for the column codes.
// Compiled once for each instruction set.
#include <algorithm>
#include <atomic>
#include <cstring>

#include "kernels/base/workers.h"
#include "kernels/cpu_refusals.h"
#include "kernels/quantize_variants.h"

#include "kernels/simd_target.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/quantize_simd.cpp"
#include <hwy/cache_control.h>
#include <hwy/foreach_target.h>

#include "kernels/quantize_rows_simd.h"

HWY_BEFORE_NAMESPACE();
namespace shoestring::quantization::HWY_NAMESPACE {
namespace {

using quantize_tile::Scale;

constexpr std::int64_t kBand = 256;  // columns of one work item when column maxima are kept

/// Rows a worker takes at once: enough elements to be worth a wake-up.
std::int64_t row_grain(const QuantizeArgs& args) { return std::max<std::int64_t>(1, 16384 / args.x.shape[1]); }

/// One work item where scales run down the rows: the rows of one tile by up to 256 columns.
template <class In>
struct Band {
  RowTile rows;
  std::int64_t tile_row = 0;
  std::int64_t column = 0;
  std::int64_t columns = 0;
  std::int64_t stride = 0;  ///< columns, padded with zeros to whole tiles
  bool plain = true;
  alignas(64) In most[kBand];                              ///< largest finite magnitude of each column
  alignas(64) float inverse[kBand];                        ///< of each column
  alignas(64) std::byte room[kTile * kBand * sizeof(In)];  // not In: that would be cleared for each item

  In* x() { return reinterpret_cast<In*>(room); }
  const In* row(std::int64_t r) const { return reinterpret_cast<const In*>(room) + r * stride; }
};

constexpr int kTogether = 4;  // of sixteen lanes: the maxima of so many stay in registers

/// Maxima of kTogether times kWide columns, and a copy of them; from the copy itself if kFiniteOnly.
template <class In, bool kFiniteOnly>
void read_columns(const In* x, std::int64_t stride, std::int64_t rows, In* copy, std::int64_t copy_stride, In* most) {
  constexpr std::int64_t kAhead = 4;  // rows: each lies in another page
  Ints found[kTogether];
  for (int v = 0; v < kTogether; ++v) found[v] = broadcast(0);
  for (std::int64_t r = 0; r < rows; ++r, x += stride, copy += copy_stride) {
    for (int v = 0; v < kTogether; ++v) {
      hwy::Prefetch(x + kAhead * stride + v * kWide<In>);
      const Ints raw = load_raw(x + v * kWide<In>);
      if constexpr (!kFiniteOnly) store_raw(copy + v * kWide<In>, raw);
      found[v] = larger(x, found[v], magnitudes<kFiniteOnly>(x, raw));
    }
  }
  for (int v = 0; v < kTogether; ++v) store_raw(most + v * kWide<In>, found[v]);
}

/// A band's copy and column maxima, those of NaN and infinities included.
template <class In>
void copy_band(const In* x, std::int64_t stride, Band<In>& band) {
  constexpr std::int64_t kStep = kTogether * kWide<In>;
  for (std::int64_t c = 0; c < band.stride; c += kStep) {
    In* copy = band.x() + c;
    const std::int64_t here = std::clamp<std::int64_t>(band.columns - c, 0, kStep);
    if (here == kStep) {
      read_columns<In, false>(x + c, stride, band.rows.count, copy, band.stride, band.most + c);
      continue;
    }
    for (std::int64_t r = 0; r < band.rows.count; ++r) {  // the end of the last tile: zeros behind it
      std::byte* line = band.room + (r * band.stride + c) * static_cast<std::int64_t>(sizeof(In));
      const std::size_t bytes = static_cast<std::size_t>(here) * sizeof(In);
      std::memcpy(line, x + r * stride + c, bytes);
      std::memset(line + bytes, 0, kStep * sizeof(In) - bytes);
    }
    read_columns<In, false>(copy, band.stride, band.rows.count, copy, band.stride, band.most + c);  // onto itself
  }
}

/// The largest magnitude bits of a band's columns.
template <class In>
std::int32_t most_of(const Band<In>& band) {
  Ints most = broadcast(0);
  for (std::int64_t c = 0; c < band.stride; c += kLanes) most = greater(most, bits_of(load(band.most + c)));
  return largest(most);
}

/// First read: a copy of x, column maxima, and the row codes when `rows` says so.
template <class In, class Payload>
void read_band(const QuantizeArgs& args, const RowPass* rows, Band<In>& band, Tally& tally) {
  copy_band(args.x.as<In>() + band.rows.begin * args.x.strides[0] + band.column, args.x.strides[0], band);
  std::int32_t most = most_of(band);
  band.plain = most <= kLargestFinite;
  if (!band.plain) {
    for (std::int64_t c = 0; c < band.stride; c += kTogether * kWide<In>) {
      In* copy = band.x() + c;
      read_columns<In, true>(copy, band.stride, band.rows.count, copy, band.stride, band.most + c);
    }
    most = most_of(band);
  }
  tally.amax = std::max(tally.amax, most);
  if (rows == nullptr) return;
  if (band.columns == args.x.shape[1]) {
    quantize_rows<In, Payload>(*rows, band.x(), band.stride, band.rows, band.columns, tally);
    return;
  }
  for (std::int64_t r = 0; r < band.rows.count; ++r) {
    quantize_line<In, Payload>(*rows, band.row(r), band.rows.begin + r, band.column, band.columns, tally);
  }
}

/// Scales of a band: one per column, or one per `width` columns.
template <class In, class Payload>
void scale_band(const QuantizeArgs& args, const TensorView& scales, std::int64_t width, Band<In>& band) {
  alignas(64) std::int32_t amax[kBand];
  alignas(64) float scale[kBand];
  for (std::int64_t c = 0; c < band.stride; c += kLanes) store(amax + c, bits_of(load(band.most + c)));
  for (std::int64_t c = 0; width > 1 && c < band.stride; c += width) {
    std::fill(amax + c, amax + c + width, *std::max_element(amax + c, amax + c + width));
  }
  for (std::int64_t c = 0; c < band.stride; c += kLanes) {
    const Scales found = scales_of<Payload>(load(amax + c), args.scale_kind);
    store(scale + c, found.scale);
    store(band.inverse + c, found.inverse);
  }
  if (args.scales_given) {
    for (std::int64_t c = 0; c < band.columns; c += width) {
      const Scale given = quantize_tile::given(read_scale(scales, band.tile_row, (band.column + c) / width));
      std::fill(band.inverse + c, band.inverse + c + width, given.inverse);
    }
  } else if (width == 1 && scales.dtype == DType::f32 && scales.strides[1] == 1) {
    std::memcpy(scales.as<float>() + band.tile_row * scales.strides[0] + band.column, scale,
                static_cast<std::size_t>(band.columns) * sizeof(float));
  } else {
    for (std::int64_t c = 0; c < band.columns; c += width) {
      write_scale(scales, band.tile_row, (band.column + c) / width, scale[c]);
    }
  }
}

/// Sixteen lines of sixteen bytes, transposed.
HWY_INLINE void transpose16(const std::uint8_t* from, std::int64_t from_stride, std::uint8_t* to,
                            std::int64_t to_stride) {
  const hn::Full128<std::uint8_t> d;
  hn::Vec<hn::Full128<std::uint8_t>> a[16], b[16];
  for (int i = 0; i < 16; ++i) a[i] = hn::LoadU(d, from + i * from_stride);
  for (int round = 0; round < 4; ++round) {  // each perfect shuffle of the lines moves one bit of the address
    for (int i = 0; i < 8; ++i) {
      b[2 * i] = hn::InterleaveLower(d, a[i], a[i + 8]);
      b[2 * i + 1] = hn::InterleaveUpper(d, a[i], a[i + 8]);
    }
    for (int i = 0; i < 16; ++i) a[i] = b[i];
  }
  for (int i = 0; i < 16; ++i) hn::StoreU(a[i], d, to + i * to_stride);
}

/// Writes `rows` lines of `columns` codes, kBand apart, as columns of an output whose rows are contiguous.
void store_transposed(const std::uint8_t* codes, std::int64_t rows, std::int64_t columns, std::uint8_t* out,
                      std::int64_t stride) {
  for (std::int64_t c = 0; c < columns; c += 16) {
    for (std::int64_t r = 0; r < rows; r += 16) {
      if (r + 16 <= rows && c + 16 <= columns) {
        transpose16(codes + r * kBand + c, kBand, out + c * stride + r, stride);
        continue;
      }
      for (std::int64_t i = c; i < std::min(c + 16, columns); ++i) {
        for (std::int64_t j = r; j < std::min(r + 16, rows); ++j) out[i * stride + j] = codes[j * kBand + i];
      }
    }
  }
}

/// Second read: the codes of a band under its column scales, to one or two outputs.
template <class In, class Payload>
void write_band(const QuantizeArgs& args, std::span<const TensorView> outputs, const Band<In>& band, Tally& tally) {
  constexpr std::int64_t kLines = 64;  // one cache line of a transposed output
  alignas(64) std::uint8_t codes[kLines][kBand];
  const bool plain = band.plain && !args.scales_given;
  const bool straight = outputs.size() == 1 && outputs[0].strides[1] == 1;
  for (std::int64_t first = 0; first < band.rows.count; first += kLines) {
    const std::int64_t lines = std::min(kLines, band.rows.count - first);
    const auto place = [&](const TensorView& out, std::int64_t r) {
      return out.as<std::uint8_t>() + (band.rows.begin + first + r) * out.strides[0] + band.column * out.strides[1];
    };
    for (std::int64_t r = 0; r < lines; ++r) {
      std::uint8_t* to = straight ? place(outputs[0], r) : codes[r];
      encode_line<In, Payload, true>(plain, band.row(first + r), band.columns, band.inverse, band.stride, to, tally);
    }
    for (const TensorView& out : outputs) {
      if (straight) break;
      if (out.strides[1] != 1) {
        store_transposed(codes[0], lines, band.columns, place(out, 0), out.strides[1]);
        continue;
      }
      for (std::int64_t r = 0; r < lines; ++r) {
        std::memcpy(place(out, r), codes[r], static_cast<std::size_t>(band.columns));
      }
    }
  }
}

/// Largest magnitude bits of rows [begin, end) of x; those of NaN and infinities included unless kFiniteOnly.
template <class In, bool kFiniteOnly>
std::int32_t amax_of_rows(const ConstTensorView& x, std::int64_t begin, std::int64_t end) {
  alignas(64) In room[kLine];
  std::int32_t most = 0;
  for (std::int64_t row = begin; row < end; ++row) {
    for (std::int64_t column = 0; column < x.shape[1]; column += kLine) {
      const std::int64_t count = std::min(kLine, x.shape[1] - column);
      const In* line = padded(x.as<In>() + row * x.strides[0] + column, count, room);
      std::int32_t amax;
      amax_of_tiles<In, kFiniteOnly>(line, 1, (count + kTile - 1) / kTile * kTile, &amax);
      most = std::max(most, amax);
    }
  }
  return most;
}

template <class In, bool kFiniteOnly>
std::int32_t amax_of_matrix(const QuantizeArgs& args) {
  std::atomic<std::int32_t> most{0};
  args.stream.workers().split(args.x.shape[0], row_grain(args), [&](std::int64_t begin, std::int64_t end) {
    const std::int32_t part = amax_of_rows<In, kFiniteOnly>(args.x, begin, end);
    std::int32_t seen = most;
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
  const std::int64_t columns = args.x.shape[1];
  const Strides& scale_strides = pass.scales.strides;
  pass.joined = columns % kTile == 0 && pass.values.strides[0] == columns &&
                (pass.width == 0 || (scale_strides[0] == columns / pass.width && scale_strides[1] == 1));
  if (pass.width == 0 && !args.scales_given) {
    std::int32_t amax = amax_of_matrix<In, false>(args);
    pass.covers = amax <= kLargestFinite;
    if (!pass.covers) amax = amax_of_matrix<In, true>(args);
    const auto bits = static_cast<std::uint32_t>(amax);
    write_scale(pass.scales, 0, 0, quantize_tile::scale_of(bits, pass.kind, Constants<Payload>::format).scale);
  }
  return pass;
}

/// Work item `item` of the bands of outputs that share their tiles.
template <class In, class Payload>
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
  band.stride = (band.columns + kTile - 1) / kTile * kTile;
  read_band<In, Payload>(args, rows, band, tally);
  TensorView values[2];
  std::size_t count = 0;
  for (const ScaledView& output : outputs) {
    scale_band<In, Payload>(args, output.scales, output.granularity.columns, band);
    values[count++] = output.values;
  }
  write_band<In, Payload>(args, {values, count}, band, tally);
  tally.counts.elements = band.rows.count * band.columns * (rows != nullptr ? 2 : 1);
  tally.flush(args.counts);
}

template <class In, class Payload>
void quantize_bands(const QuantizeArgs& args, const RowPass* rows, std::span<const ScaledView> outputs) {
  const Segments segments(args.segments, args.x.shape[0], outputs[0].granularity);
  const std::int64_t items = segments.tiles() * ((args.x.shape[1] + kBand - 1) / kBand);
  args.stream.workers().split(items, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t item = begin; item < end; ++item) {
      quantize_band<In, Payload>(args, rows, outputs, segments, item);
    }
  });
}

template <class In, class Payload>
void quantize_rows_of(const QuantizeArgs& args, const RowPass& pass, RowTile rows) {
  Tally tally{args.counts != nullptr, {}};
  const In* x = args.x.as<In>() + rows.begin * args.x.strides[0];
  quantize_rows<In, Payload>(pass, x, args.x.strides[0], rows, args.x.shape[1], tally);
  tally.counts.elements = rows.count * args.x.shape[1];
  tally.flush(args.counts);
}

template <class In, class Payload>
void quantize_outputs(const QuantizeArgs& args) {
  const bool rows = !args.row_tiles.values.empty();
  const bool columns = !args.column_tiles.values.empty();
  if (rows && args.row_tiles.granularity == kBlock128) {
    const ScaledView both[2] = {args.row_tiles, args.column_tiles};
    const bool same = columns && args.column_tiles.granularity == kBlock128;
    quantize_bands<In, Payload>(args, nullptr, {both, same ? std::size_t{2} : std::size_t{1}});
    if (columns && !same) quantize_bands<In, Payload>(args, nullptr, {&args.column_tiles, 1});
    return;
  }
  const RowPass pass = rows ? row_pass<In, Payload>(args) : RowPass{};
  if (columns) {
    quantize_bands<In, Payload>(args, rows ? &pass : nullptr, {&args.column_tiles, 1});
    return;
  }
  args.stream.workers().split(args.x.shape[0], row_grain(args), [&](std::int64_t begin, std::int64_t end) {
    quantize_rows_of<In, Payload>(args, pass, {begin, end - begin});
  });
}

template <class In>
void quantize_input(const QuantizeArgs& args) {
  const ScaledView& first = args.row_tiles.values.empty() ? args.column_tiles : args.row_tiles;
  first.values.dtype == DType::e4m3 ? quantize_outputs<In, E4M3>(args) : quantize_outputs<In, E5M2>(args);
}

}  // namespace

void quantize(const QuantizeArgs& args) {
  args.x.dtype == DType::f32 ? quantize_input<float>(args) : quantize_input<BFloat16>(args);
}

}  // namespace shoestring::quantization::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace shoestring::quantization::simd {

std::string refuses_quantize(const QuantizeArgs& args) {
  if (std::string reason = refuses_device(args); !reason.empty()) return reason;
  if (std::string reason = needs_simd(args, args.x.dtype); !reason.empty()) return reason;
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

void quantize(const QuantizeArgs& args) { SHOESTRING_SIMD(quantize)(args); }

}  // namespace shoestring::quantization::simd
#endif
