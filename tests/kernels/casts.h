// Both copies that a quantising op writes, and how those of two ops are compared.
#pragma once

#include <gtest/gtest.h>

#include <span>

#include "kernels/quantize.h"
#include "tests/support/compare.h"
#include "tests/support/fill.h"

namespace shoestring::testing {

struct Casts {
  Fenced row_values, row_scales, column_values, column_scales;
  QuantizeCounts counts{};

  explicit Casts(const Shape& shape, std::span<const std::int64_t> segments = {})
      : row_values(DType::e4m3, shape),
        row_scales(DType::f32, tile_scales_shape(shape[0], shape[1], kRowTile128)),
        column_values(DType::e4m3, {shape[1], shape[0]}),
        column_scales(DType::f32, tile_scales_shape(shape[0], shape[1], kColumnTile128, segments)) {}
  ScaledView row_tiles() const { return {row_values.view(), row_scales.view(), kRowTile128}; }
  ScaledView column_tiles() const { return {column_values.view().transposed(), column_scales.view(), kColumnTile128}; }

  /// What quantise makes of `x`.
  void quantize_from(ConstTensorView x, std::span<const std::int64_t> segments, ScaleKind kind, Stream& stream) {
    quantize({.x = x,
              .row_tiles = row_tiles(),
              .column_tiles = column_tiles(),
              .scale_kind = kind,
              .segments = segments,
              .counts = &counts,
              .stream = stream});
  }
};

inline void expect_same_casts(const Casts& actual, const Casts& expected) {
  const auto same = [](const Fenced& a, const Fenced& b, const char* what) {
    EXPECT_TRUE(same_bits(a, b)) << what;
    EXPECT_TRUE(a.intact()) << what;
  };
  same(actual.row_values, expected.row_values, "codes by row");
  same(actual.row_scales, expected.row_scales, "scales by row");
  same(actual.column_values, expected.column_values, "codes by column");
  same(actual.column_scales, expected.column_scales, "scales by column");
  EXPECT_EQ(actual.counts.elements, expected.counts.elements);
  EXPECT_EQ(actual.counts.saturated, expected.counts.saturated);
  EXPECT_EQ(actual.counts.underflowed, expected.counts.underflowed);
  EXPECT_EQ(actual.counts.non_finite, expected.counts.non_finite);
  EXPECT_EQ(actual.counts.amax, expected.counts.amax);
}

}  // namespace shoestring::testing
