#include <fmt/core.h>
#include <gtest/gtest.h>

#include <cmath>
#include <utility>
#include <vector>

#include "kernels/base/workers.h"
#include "kernels/quantize.h"
#include "tests/support/compare.h"
#include "tests/support/fill.h"
#include "tests/support/row_coverage.h"

namespace shoestring {
namespace {

using testing::Fenced;
using testing::same_bits;

/// The largest error of a code in units of its bound: half a last place of the value, or of the least subnormal.
double worst_error(ConstTensorView x, ConstTensorView y, ConstTensorView scales, std::int64_t width) {
  double worst = 0;
  for (std::int64_t r = 0; r < x.shape[0]; ++r) {
    for (std::int64_t c = 0; c < x.shape[1]; ++c) {
      const double value = testing::value_at(x, r * x.shape[1] + c);
      const double back = testing::value_at(y, r * x.shape[1] + c);
      const double scale = testing::value_at(scales, r * scales.shape[1] + c / width);
      // Three single roundings (scale, inverse, product) move the value before it is rounded: 3 * 2^-24 is their share.
      const double bound = std::max(std::abs(value) * (0x1p-4 + 0x1p-22), scale * 0x1p-10);
      worst = std::max(worst, std::abs(value - back) / bound);
    }
  }
  return worst;
}

TEST(Dequantize, RoundTripStaysWithinHalfALastPlace) {
  Workers workers(2);
  Stream stream(workers);
  const Tensor x = testing::heavy_tailed(DType::f32, {96, 384}, 21);
  Tensor codes(DType::e4m3, {96, 384});
  Tensor scales(DType::f32, {96, 3});
  Tensor y(DType::f32, {96, 384});
  quantize({.x = x, .row_tiles = {codes, scales, kRowTile128}, .stream = stream});
  const auto back = [&] {
    dequantize({.y = y, .x = ScaledView{codes, scales, kRowTile128}, .stream = stream});
    return worst_error(x, y, scales, 128);
  };
  EXPECT_LE(back(), 1.0);
  const float kept = scales.as<float>()[7];
  scales.as<float>()[7] = kept * 1.02f;  // damage: one scale wrong by two percent
  EXPECT_GT(back(), 1.0);
  scales.as<float>()[7] = kept;
  std::swap(codes.as<std::uint8_t>()[5], codes.as<std::uint8_t>()[6]);
  EXPECT_GT(back(), 1.0);
}

TEST(Dequantize, VariantsAgreeOnEveryCodeAndGranularity) {
  Workers workers(3);
  Stream stream(workers);
  const std::int64_t rows = 260;
  const std::int64_t columns = 300;
  const std::vector<std::int64_t> segments = {0, 3, 3, 200, 260};
  for (const DType payload : {DType::e4m3, DType::e5m2}) {
    Tensor codes(payload, {rows, columns});
    for (std::int64_t i = 0; i < rows * columns; ++i) codes.as<std::uint8_t>()[i] = static_cast<std::uint8_t>(i * 7);
    for (const Granularity tile : {kRowTile128, kRowTile32, kPerTensor, kBlock128, kColumnTile128, kColumnTile32}) {
      for (const DType scale_dtype : {DType::f32, DType::e8m0}) {
        Tensor scales(scale_dtype, tile_scales_shape(rows, columns, tile, segments));
        for (std::int64_t i = 0; i < scales.view().elements(); ++i) {
          testing::set_value(scales, i,
                             scale_dtype == DType::f32 ? 0.37 + 0.01 * static_cast<double>(i % 90)
                                                       : std::ldexp(1.0, static_cast<int>(i % 40) - 20));
        }
        for (const DType output : {DType::f32, DType::bf16}) {
          Fenced expected(output, {rows, columns}, 5);
          DequantizeArgs args{
              .y = expected, .x = ScaledView{codes, scales, tile}, .segments = segments, .stream = stream};
          dequantize_variants().back().run(args);
          for (const Variant<DequantizeArgs>& row : dequantize_variants()) {
            SCOPED_TRACE(fmt::format("{} {} {}x{}", row.name, name(payload), tile.rows, tile.columns));
            Fenced actual(output, {rows, columns}, 5);
            args.y = actual;
            if (!testing::runs(row, args)) continue;
            row.run(args);
            EXPECT_TRUE(same_bits(actual, expected));
            EXPECT_TRUE(actual.intact());
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace shoestring
