// Row codes of quantize_avx512.cpp, included after its target pragma: a line of up to 2048 columns at a time while it
// lies in the L1 cache; maxima of its tiles, scales of sixteen tiles at once, codes.
#pragma once

#include <algorithm>
#include <cstring>

#include "kernels/quantize_unit_avx512.h"

namespace shoestring::quantization::avx512 {
namespace {

using quantize_tile::RowTile;

constexpr std::int64_t kLine = 2048;  // columns of one line: sixteen tiles of 128

/// What a pass over rows writes, and how.
struct RowPass {
  TensorView values;
  TensorView scales;
  std::int64_t width = kTile;  ///< 128 or 32 columns share a scale; 0: one scale for all
  ScaleKind kind = ScaleKind::f32;
  bool given = false;   ///< the scales stand in `scales`
  bool covers = false;  ///< ... and are known to cover x, all of it finite
  bool joined = false;  ///< rows follow each other without gaps in both outputs, and tiles end with them
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
  if (pass.scales.dtype == DType::f32 && pass.scales.strides[1] == 1) {
    std::memcpy(pass.scales.as<float>() + row * pass.scales.strides[0] + first, line.scale,
                static_cast<std::size_t>(tiles) * sizeof(float));
    return;
  }
  for (std::int64_t t = 0; t < tiles; ++t) write_scale(pass.scales, row, first + t, line.scale[t]);
}

/// The largest of the maxima of a line, lane by lane.
__m512i most_of_line(const LineScales& line, std::int64_t tiles) {
  __m512i most = _mm512_load_si512(line.amax);
  for (std::int64_t t = 16; t < tiles; t += 16) most = _mm512_max_epu32(most, _mm512_load_si512(line.amax + t));
  return most;
}

bool all_finite(__m512i magnitudes) {
  return _mm512_cmpgt_epu32_mask(magnitudes, _mm512_set1_epi32(static_cast<int>(kLargestFinite))) == 0;
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
    __m512i most = most_of_line(line, tiles);
    if (!all_finite(most)) [[unlikely]] {
      plain = false;
      amax_of_tiles<In, kWidth, true>(x, tiles, line.amax);
      most = most_of_line(line, tiles);
    }
    tally.amax = _mm512_max_epu32(tally.amax, most);
  }
  scale_line<Payload>(pass, row, column / kWidth, tiles, line);
  std::uint8_t* out = pass.values.as<std::uint8_t>() + row * pass.values.strides[0] + column;
  encode_line<In, Payload, kWidth>(plain, x, count, line.inverse, out, tally);
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

/// Columns [first, last) of one row, from x on.
template <class In, class Payload, int kWidth>
void quantize_row(const RowPass& pass, const In* x, std::int64_t row, std::int64_t first, std::int64_t last,
                  Tally& tally) {
  alignas(64) In room[kLine];
  for (std::int64_t column = first; column < last; column += kLine, x += kLine) {
    const std::int64_t count = std::min(kLine, last - column);
    quantize_line<In, Payload, kWidth>(pass, padded(x, count, room), row, column, count, tally);
  }
}

/// Rows of `columns` elements, `stride` apart, into rows from `begin` on. Rows without gaps are one long row: short
/// ones would not fill the lanes that compute scales.
template <class In, class Payload, int kWidth>
void quantize_rows(const RowPass& pass, const In* x, std::int64_t stride, RowTile rows, std::int64_t columns,
                   Tally& tally) {
  if (pass.joined && stride == columns) {
    quantize_row<In, Payload, kWidth>(pass, x, 0, rows.begin * columns, (rows.begin + rows.count) * columns, tally);
    return;
  }
  for (std::int64_t r = 0; r < rows.count; ++r) {
    quantize_row<In, Payload, kWidth>(pass, x + r * stride, rows.begin + r, 0, columns, tally);
  }
}

}  // namespace
}  // namespace shoestring::quantization::avx512
