// Quantisation in AVX-512; row codes stand in quantize_rows_avx512.h. Where scales run down the rows, a band of up to
// 128 rows by 512 columns is copied once from memory to the stack (256 KiB: it stays in the L2 cache, and rows a power
// of two apart do not evict each other there), giving row codes and column maxima on the way, then read again for the
// column codes.
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

#include "kernels/quantize_rows_avx512.h"

namespace shoestring::quantization::avx512 {
namespace {

using quantize_tile::Scale;

constexpr std::int64_t kBand = 512;  // columns of one work item when column maxima are kept

/// Rows a worker takes at once: enough elements to be worth a wake-up.
std::int64_t row_grain(const QuantizeArgs& args) { return std::max<std::int64_t>(1, 16384 / args.x.shape[1]); }

/// One work item where scales run down the rows: the rows of one tile by up to 512 columns.
template <class In>
struct Band {
  RowTile rows;
  std::int64_t tile_row = 0;
  std::int64_t column = 0;
  std::int64_t columns = 0;
  std::int64_t stride = 0;  ///< columns, padded with zeros to whole tiles
  bool plain = true;
  alignas(64) std::uint32_t amax[kBand];                   ///< finite amax bits of each column
  alignas(64) float inverse[kBand];                        ///< in_split_order
  alignas(64) std::byte room[kTile * kBand * sizeof(In)];  // not In: that would be cleared for each item

  In* x() { return reinterpret_cast<In*>(room); }
  const In* x() const { return reinterpret_cast<const In*>(room); }
  const In* row(std::int64_t r) const { return x() + r * stride; }
};

/// Magnitude bits of a vector; those of NaN and infinities cleared if asked.
template <bool kFiniteOnly>
[[gnu::always_inline]] inline __m512i magnitude_bits(const float*, __m512i x) {
  const __m512i bits = lanes::magnitude(_mm512_castsi512_ps(x));
  return kFiniteOnly ? lanes::finite_magnitude(bits) : bits;
}
template <bool kFiniteOnly>
[[gnu::always_inline]] inline __m512i magnitude_bits(const BFloat16*, __m512i x) {
  return lanes::magnitude16<kFiniteOnly>(x);
}
[[gnu::always_inline]] inline __m512i larger(const float*, __m512i a, __m512i b) { return _mm512_max_epi32(a, b); }
[[gnu::always_inline]] inline __m512i larger(const BFloat16*, __m512i a, __m512i b) { return _mm512_max_epu16(a, b); }

/// Writes the maxima of a vector's columns as bits of f32.
inline void store_maxima(const float*, __m512i most, std::uint32_t* to) { _mm512_store_si512(to, most); }
inline void store_maxima(const BFloat16*, __m512i most, std::uint32_t* to) {
  const __m256i low = _mm512_castsi512_si256(most);
  const __m256i high = _mm512_extracti64x4_epi64(most, 1);
  _mm512_store_si512(to, _mm512_slli_epi32(_mm512_cvtepu16_epi32(low), 16));
  _mm512_store_si512(to + 16, _mm512_slli_epi32(_mm512_cvtepu16_epi32(high), 16));
}

/// Maxima of kVectors vectors of columns, and a copy of them.
template <class In, int kVectors, bool kFiniteOnly>
void read_columns(const In* x, std::int64_t stride, std::int64_t rows, In* copy, std::int64_t copy_stride,
                  std::uint32_t* amax) {
  constexpr std::int64_t kLanes = 64 / sizeof(In);
  constexpr std::int64_t kAhead = 4;  // rows: each lies in another page
  __m512i most[kVectors];
#pragma GCC unroll 16
  for (int v = 0; v < kVectors; ++v) most[v] = _mm512_setzero_si512();
  for (std::int64_t r = 0; r < rows; ++r, x += stride, copy += copy_stride) {
#pragma GCC unroll 16
    for (int v = 0; v < kVectors; ++v) {
      _mm_prefetch(reinterpret_cast<const char*>(x + kAhead * stride + v * kLanes), _MM_HINT_T0);
      const __m512i bits = _mm512_loadu_si512(x + v * kLanes);
      if constexpr (!kFiniteOnly) _mm512_store_si512(copy + v * kLanes, bits);
      most[v] = larger(x, most[v], magnitude_bits<kFiniteOnly>(x, bits));
    }
  }
#pragma GCC unroll 16
  for (int v = 0; v < kVectors; ++v) store_maxima(x, most[v], amax + v * kLanes);
}

/// A band whose columns are whole tiles: its copy and column maxima, as many vectors at a time as there are registers.
template <class In>
void copy_tiles(const In* x, std::int64_t stride, Band<In>& band) {
  constexpr std::int64_t kLanes = 64 / sizeof(In);
  std::int64_t c = 0;
  const auto take = [&]<int kVectors>() {
    for (; c + kVectors * kLanes <= band.columns; c += kVectors * kLanes) {
      read_columns<In, kVectors, false>(x + c, stride, band.rows.count, band.x() + c, band.stride, band.amax + c);
    }
  };
  take.template operator()<16>();
  take.template operator()<8>();
  take.template operator()<kTile / kLanes>();
}

/// A band whose last tile ends early: zeros behind it.
template <class In>
void copy_padded(const In* x, std::int64_t stride, Band<In>& band) {
  for (std::int64_t r = 0; r < band.rows.count; ++r) {
    In* copy = band.x() + r * band.stride;
    std::memcpy(copy, x + r * stride, static_cast<std::size_t>(band.columns) * sizeof(In));
    std::memset(static_cast<void*>(copy + band.columns), 0,
                static_cast<std::size_t>(band.stride - band.columns) * sizeof(In));
  }
  constexpr int kVectors = kTile * sizeof(In) / 64;
  for (std::int64_t c = 0; c < band.stride; c += kTile) {
    In* tile = band.x() + c;  // copied onto itself
    read_columns<In, kVectors, false>(tile, band.stride, band.rows.count, tile, band.stride, band.amax + c);
  }
}

/// Whether all of a band is finite; if not, its maxima become those of what is.
template <class In>
void settle_maxima(Band<In>& band) {
  constexpr int kVectors = kTile * sizeof(In) / 64;
  __m512i most = _mm512_setzero_si512();
  for (std::int64_t c = 0; c < band.stride; c += 16) {
    most = _mm512_max_epu32(most, _mm512_load_si512(band.amax + c));
  }
  band.plain = all_finite(most);
  for (std::int64_t c = 0; !band.plain && c < band.stride; c += kTile) {
    In* tile = band.x() + c;
    read_columns<In, kVectors, true>(tile, band.stride, band.rows.count, tile, band.stride, band.amax + c);
  }
}

/// First read: a copy of x, column maxima, and the row codes when `rows` says so.
template <class In, class Payload, int kWidth>
void read_band(const QuantizeArgs& args, const RowPass* rows, Band<In>& band, Tally& tally) {
  const In* x = args.x.as<In>() + band.rows.begin * args.x.strides[0] + band.column;
  band.columns == band.stride ? copy_tiles(x, args.x.strides[0], band) : copy_padded(x, args.x.strides[0], band);
  settle_maxima(band);
  if (rows == nullptr) return;
  if (band.columns == args.x.shape[1]) {
    quantize_rows<In, Payload, kWidth>(*rows, band.x(), band.stride, band.rows, band.columns, tally);
    return;
  }
  for (std::int64_t r = 0; r < band.rows.count; ++r) {
    quantize_line<In, Payload, kWidth>(*rows, band.row(r), band.rows.begin + r, band.column, band.columns, tally);
  }
}

/// Scales of a band: one per column, or one per `width` columns.
template <class In, class Payload>
void scale_band(const QuantizeArgs& args, const TensorView& scales, std::int64_t width, Band<In>& band, Tally& tally) {
  for (std::int64_t c = 0; c < band.stride; c += 16) {
    tally.amax = _mm512_max_epu32(tally.amax, _mm512_load_si512(band.amax + c));
  }
  for (std::int64_t c = 0; width > 1 && c < band.stride; c += width) {
    std::fill(band.amax + c, band.amax + c + width, *std::max_element(band.amax + c, band.amax + c + width));
  }
  alignas(64) float scale[kBand];
  for (std::int64_t c = 0; c < band.stride; c += 16) {
    __m512 lane_scale;
    __m512 lane_inverse;
    lanes::scales_of<Payload>(_mm512_load_si512(band.amax + c), args.scale_kind, lane_scale, lane_inverse);
    _mm512_store_ps(scale + c, lane_scale);
    _mm512_store_ps(band.inverse + c, lane_inverse);
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
  for (std::int64_t c = 0; c < band.stride; c += 32) lanes::in_split_order(band.x(), band.inverse + c);
}

/// Second read: the codes of a band under its column scales, to one or two outputs.
template <class In, class Payload>
void write_band(const QuantizeArgs& args, std::span<const TensorView> outputs, const Band<In>& band, Tally& tally) {
  constexpr std::int64_t kLines = 64;  // one cache line of a transposed output
  alignas(64) std::uint8_t codes[kLines][kBand];
  const bool plain = band.plain && !args.scales_given;
  for (std::int64_t first = 0; first < band.rows.count; first += kLines) {
    const std::int64_t lines = std::min(kLines, band.rows.count - first);
    const auto place = [&](const TensorView& out, std::int64_t r) {
      return out.as<std::uint8_t>() + (band.rows.begin + first + r) * out.strides[0] + band.column * out.strides[1];
    };
    const bool straight = outputs.size() == 1 && outputs[0].strides[1] == 1;
    for (std::int64_t r = 0; r < lines; ++r) {
      std::uint8_t* to = straight ? place(outputs[0], r) : codes[r];
      encode_line<In, Payload, 1>(plain, band.row(first + r), band.columns, band.inverse, to, tally);
    }
    for (const TensorView& out : outputs) {
      if (straight) break;
      if (out.strides[1] != 1) {
        store_transposed(codes[0], kBand, lines, band.columns, place(out, 0), out.strides[1]);
        continue;
      }
      for (std::int64_t r = 0; r < lines; ++r) {
        std::memcpy(place(out, r), codes[r], static_cast<std::size_t>(band.columns));
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
  const std::int64_t columns = args.x.shape[1];
  const Strides& scale_strides = pass.scales.strides;
  pass.joined = columns % kTile == 0 && pass.values.strides[0] == columns &&
                (pass.width == 0 || (scale_strides[0] == columns / pass.width && scale_strides[1] == 1));
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
  band.stride = (band.columns + kTile - 1) / kTile * kTile;
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
    Tally tally{args.counts != nullptr, {}};
    const In* x = args.x.as<In>() + begin * args.x.strides[0];
    quantize_rows<In, Payload, kWidth>(pass, x, args.x.strides[0], {begin, end - begin}, args.x.shape[1], tally);
    tally.counts.elements = (end - begin) * args.x.shape[1];
    tally.flush(args.counts);
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
