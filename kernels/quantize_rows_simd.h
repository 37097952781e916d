// Part of quantize_simd.cpp: one line of columns at a time while it lies in the L1 cache: maxima of its tiles, scales
// of sixteen tiles at once, codes.
//
// Lines are padded with zeros to a multiple of 128 columns; only stores of codes know where a line really ends.
#if defined(SHOESTRING_KERNELS_QUANTIZE_ROWS_SIMD_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SHOESTRING_KERNELS_QUANTIZE_ROWS_SIMD_H_
#undef SHOESTRING_KERNELS_QUANTIZE_ROWS_SIMD_H_
#else
#define SHOESTRING_KERNELS_QUANTIZE_ROWS_SIMD_H_
#endif

#include <algorithm>
#include <cstring>

#include "kernels/quantize_lanes_simd.h"
#include "kernels/quantize_variants.h"

HWY_BEFORE_NAMESPACE();
namespace shoestring::quantization::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;
using namespace shoestring::HWY_NAMESPACE::quantize_lanes;
using quantize_tile::RowTile;

inline constexpr std::int64_t kTile = 128;
inline constexpr std::int64_t kLine = 2048;  // columns of one line: sixteen tiles of 128
inline constexpr std::int64_t kUnit = 32;    // columns whose codes are stored together

/// Counts of one work item.
struct Tally {
  bool wanted;
  QuantizeCounts counts;
  std::int32_t amax = 0;  ///< magnitude bits

  void flush(QuantizeCounts* total) {
    if (!wanted) return;
    counts.amax = dtype_bits::to_float(static_cast<std::uint32_t>(amax));
    add(total, counts);
  }
};

// Maxima are found in the input's own bits, as integers: sixteen singles, or thirty-two BF16 in as many bytes.
template <class In>
inline constexpr std::int64_t kWide = 64 / static_cast<std::int64_t>(sizeof(In));
using Shorts = hn::Repartition<std::int16_t, I>;

template <class In>
HWY_INLINE Ints load_raw(const In* x) {
  return load(reinterpret_cast<const std::int32_t*>(x));
}
template <class In>
HWY_INLINE void store_raw(In* x, Ints bits) {
  store(reinterpret_cast<std::int32_t*>(x), bits);
}

/// Magnitudes of raw elements; those of NaN and infinities cleared if asked.
template <bool kFiniteOnly>
HWY_INLINE Ints magnitudes(const float*, Ints raw) {
  const Ints bits = raw & broadcast(kMagnitude);
  return kFiniteOnly ? select(bits < broadcast(kLargestFinite + 1), bits, broadcast(0)) : bits;
}
template <bool kFiniteOnly>
HWY_INLINE Ints magnitudes(const BFloat16*, Ints raw) {
  for (int p = 0; p < kParts; ++p) {
    auto bits = hn::And(hn::BitCast(Shorts(), raw.part[p]), hn::Set(Shorts(), std::int16_t{0x7FFF}));
    if (kFiniteOnly) bits = hn::IfThenElseZero(hn::Lt(bits, hn::Set(Shorts(), std::int16_t{0x7F80})), bits);
    raw.part[p] = hn::BitCast(I(), bits);
  }
  return raw;
}
HWY_INLINE Ints larger(const float*, Ints a, Ints b) { return greater(a, b); }
HWY_INLINE Ints larger(const BFloat16*, Ints a, Ints b) {
  for (int p = 0; p < kParts; ++p) {
    const auto most = hn::Max(hn::BitCast(Shorts(), a.part[p]), hn::BitCast(Shorts(), b.part[p]));
    a.part[p] = hn::BitCast(I(), most);
  }
  return a;
}
/// Maxima as bits of singles, half of them where there were thirty-two.
HWY_INLINE Ints in_singles(const float*, Ints most) { return most; }
HWY_INLINE Ints in_singles(const BFloat16*, Ints most) {
  return greater(most & broadcast(0x7FFF0000), shift_left<16>(most));
}

/// Magnitude bits of the maxima of tiles of `width` columns.
template <class In, bool kFiniteOnly>
void amax_of_tiles(const In* x, std::int64_t tiles, std::int64_t width, std::int32_t* amax) {
  for (std::int64_t t = 0; t < tiles; ++t, x += width) {
    Ints most = magnitudes<kFiniteOnly>(x, load_raw(x));
    for (std::int64_t c = kWide<In>; c < width; c += kWide<In>) {
      most = larger(x, most, magnitudes<kFiniteOnly>(x, load_raw(x + c)));
    }
    amax[t] = largest(in_singles(x, most));
  }
}

/// Of magnitude bits.
HWY_INLINE std::int32_t largest_of(const std::int32_t* amax, std::int64_t tiles) {
  std::int32_t most = 0;
  for (std::int64_t t = 0; t < tiles; ++t) most = std::max(most, amax[t]);
  return most;
}

/// What a pass over rows writes, and how.
struct RowPass {
  TensorView values;
  TensorView scales;
  std::int64_t width = kTile;  ///< 128 or 32 columns share a scale; 0: one scale for all
  ScaleKind kind = ScaleKind::f32;
  bool given = false;   ///< the scales stand in `scales`
  bool covers = false;  ///< ... and are known to cover x, all of it finite
  bool joined = false;  ///< rows follow each other without gaps in both outputs, and tiles end with them

  std::int64_t tile() const { return width == 0 ? kTile : width; }
};

/// Maxima, scales and their inverses of the tiles of one line.
struct LineScales {
  alignas(64) std::int32_t amax[kLine / kUnit];
  alignas(64) float scale[kLine / kUnit];
  alignas(64) float inverse[kLine / kUnit];
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
  for (std::int64_t t = 0; t < tiles; t += kLanes) {
    const Scales found = scales_of<Payload>(load(line.amax + t), pass.kind);
    store(line.scale + t, found.scale);
    store(line.inverse + t, found.inverse);
  }
  if (pass.scales.dtype == DType::f32 && pass.scales.strides[1] == 1) {
    std::memcpy(pass.scales.as<float>() + row * pass.scales.strides[0] + first, line.scale,
                static_cast<std::size_t>(tiles) * sizeof(float));
    return;
  }
  for (std::int64_t t = 0; t < tiles; ++t) write_scale(pass.scales, row, first + t, line.scale[t]);
}

/// How codes are made. plain: every x is finite and covered by its scale.
enum class Care { plain, counted, any };

template <class Payload, Care care>
HWY_INLINE Ints encode_with(Floats x, Floats inverse, QuantizeCounts& counts) {
  if constexpr (care == Care::any) return encode_any<Payload>(x, inverse, counts);
  if constexpr (care == Care::counted) count_underflow<Payload>(x, inverse, counts);
  return encode<Payload>(x, inverse);
}

/// Codes of a line. `inverse` has one element for every `width` columns; kByColumn: for every column, and width is the
/// line's own.
template <class In, class Payload, bool kByColumn, Care care>
void encode_line(const In* x, std::int64_t count, const float* inverse, std::int64_t width, std::uint8_t* out,
                 QuantizeCounts& counts) {
  std::uint8_t room[kUnit];
  for (std::int64_t tile = 0; tile < count; tile += width, ++inverse) {
    // NOLINTNEXTLINE(clang-analyzer-core.CallAndMessage): a line that is not empty has a tile, and it an inverse
    const Floats shared = broadcast(*inverse);
    for (std::int64_t c = tile; c < std::min(count, tile + width); c += kUnit) {
      const Floats first = kByColumn ? load(inverse + c) : shared;
      const Floats second = kByColumn ? load(inverse + c + kLanes) : shared;
      const Ints low = encode_with<Payload, care>(load(x + c), first, counts);
      const Ints high = encode_with<Payload, care>(load(x + c + kLanes), second, counts);
      if (HWY_LIKELY(count - c >= kUnit)) {
        store_bytes(out + c, low, high);
      } else {
        store_bytes(room, low, high);
        std::memcpy(out + c, room, static_cast<std::size_t>(count - c));
      }
    }
  }
}

template <class In, class Payload, bool kByColumn>
void encode_line(bool plain, const In* x, std::int64_t count, const float* inverse, std::int64_t width,
                 std::uint8_t* out, Tally& tally) {
  const auto encode = !plain         ? encode_line<In, Payload, kByColumn, Care::any>
                      : tally.wanted ? encode_line<In, Payload, kByColumn, Care::counted>
                                     : encode_line<In, Payload, kByColumn, Care::plain>;
  encode(x, count, inverse, width, out, tally.counts);
}

/// Columns [column, column + count) of one row; x is padded to whole tiles of 128.
template <class In, class Payload>
void quantize_line(const RowPass& pass, const In* x, std::int64_t row, std::int64_t column, std::int64_t count,
                   Tally& tally) {
  LineScales line;
  const std::int64_t width = pass.tile();
  const std::int64_t tiles = (count + width - 1) / width;
  bool plain = !pass.given || pass.covers;
  if (!pass.given || tally.wanted) {
    for (std::int64_t t = 0; t < tiles; t += kLanes) store(line.amax + t, broadcast(0));
    amax_of_tiles<In, false>(x, tiles, width, line.amax);
    std::int32_t most = largest_of(line.amax, tiles);
    if (most > kLargestFinite) {
      plain = false;
      amax_of_tiles<In, true>(x, tiles, width, line.amax);
      most = largest_of(line.amax, tiles);
    }
    tally.amax = std::max(tally.amax, most);
  }
  scale_line<Payload>(pass, row, column / width, tiles, line);
  std::uint8_t* out = pass.values.as<std::uint8_t>() + row * pass.values.strides[0] + column;
  encode_line<In, Payload, false>(plain, x, count, line.inverse, width, out, tally);
}

/// x itself when it fills whole tiles, otherwise its copy in `room`, padded with zeros.
template <class In>
const In* padded(const In* x, std::int64_t count, In* room) {
  if (count % kTile == 0) return x;
  std::memcpy(static_cast<void*>(room), x, static_cast<std::size_t>(count) * sizeof(In));
  std::memset(static_cast<void*>(room + count), 0, static_cast<std::size_t>(kTile - count % kTile) * sizeof(In));
  return room;
}

/// Columns [first, last) of one row, from x on.
template <class In, class Payload>
void quantize_row(const RowPass& pass, const In* x, std::int64_t row, std::int64_t first, std::int64_t last,
                  Tally& tally) {
  alignas(64) In room[kLine];
  for (std::int64_t column = first; column < last; column += kLine, x += kLine) {
    const std::int64_t count = std::min(kLine, last - column);
    quantize_line<In, Payload>(pass, padded(x, count, room), row, column, count, tally);
  }
}

/// Rows of `columns` elements, `stride` apart, into rows from `begin` on. Rows without gaps are one long row: short
/// ones would not fill the lanes that compute scales.
template <class In, class Payload>
void quantize_rows(const RowPass& pass, const In* x, std::int64_t stride, RowTile rows, std::int64_t columns,
                   Tally& tally) {
  if (pass.joined && stride == columns) {
    quantize_row<In, Payload>(pass, x, 0, rows.begin * columns, (rows.begin + rows.count) * columns, tally);
    return;
  }
  for (std::int64_t r = 0; r < rows.count; ++r) {
    quantize_row<In, Payload>(pass, x + r * stride, rows.begin + r, 0, columns, tally);
  }
}

}  // namespace shoestring::quantization::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
