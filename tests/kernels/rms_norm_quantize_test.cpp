#include "kernels/rms_norm_quantize.h"

#include <gtest/gtest.h>

#include <tuple>

#include "kernels/base/check.h"
#include "kernels/base/workers.h"
#include "tests/kernels/casts.h"
#include "tests/support/row_coverage.h"

namespace shoestring {
namespace {

using testing::Casts;
using testing::Fenced;
using testing::heavy_tailed;
using testing::same_bits;
using testing::uniform;

// Every row of the table writes the bits of the two ops in turn, and what the norm keeps beside them.
TEST(RmsNormQuantize, EqualsTheNormAndThenQuantise) {
  Workers workers(2);
  Stream stream(workers);
  for (const auto& [rows, hidden, format, residual, kind] :
       {std::tuple{1, 128, DType::bf16, false, ScaleKind::f32}, std::tuple{129, 200, DType::bf16, true, ScaleKind::f32},
        std::tuple{700, 384, DType::bf16, false, ScaleKind::power_of_two},
        std::tuple{257, 33, DType::f32, true, ScaleKind::f32}}) {
    const Shape shape{rows, hidden};
    const Tensor wide = heavy_tailed(format, {rows, hidden + 5}, 1), other = heavy_tailed(format, shape, 2);
    const ConstTensorView x = wide.view().slice(1, 5, hidden);
    const Tensor gamma = uniform(DType::f32, {hidden}, 3, 0.5, 1.5);
    Arena scratch(rms_norm_quantize_scratch_bytes(rows, hidden, DeviceKind::cpu), {});
    Casts apart(shape);
    Fenced y(format, shape), rstd(DType::f32, {rows}), sum(format, shape);
    RmsNormArgs norm{.y = y, .rstd = rstd, .x = x, .gamma = gamma, .eps = 1e-5f, .stream = stream};
    if (residual) {
      norm.residual = other;
      norm.sum = sum;
    }
    rms_norm_forward(norm);
    apart.quantize_from(y, {}, kind, stream);
    for (const Variant<RmsNormQuantizeArgs>& row : rms_norm_quantize_variants()) {
      Casts fused(shape);
      Fenced own_rstd(DType::f32, {rows}), own_sum(format, shape);
      RmsNormQuantizeArgs args{.row_tiles = fused.row_tiles(),
                               .column_tiles = fused.column_tiles(),
                               .rstd = own_rstd,
                               .x = x,
                               .gamma = gamma,
                               .eps = 1e-5f,
                               .scale_kind = kind,
                               .counts = &fused.counts,
                               .scratch = scratch,
                               .stream = stream};
      if (residual) {
        args.residual = other;
        args.sum = own_sum;
      }
      if (!testing::runs(row, args)) continue;
      row.run(args);
      testing::expect_same_casts(fused, apart);
      EXPECT_TRUE(same_bits(own_rstd, rstd));
      EXPECT_TRUE(same_bits(own_sum, sum));
      EXPECT_EQ(scratch.used_bytes(), 0);
    }
  }
}

TEST(RmsNormQuantize, OneOrientationAndNothingKept) {
  Workers workers(1);
  Stream stream(workers);
  const Shape shape{140, 256};
  const Tensor x = heavy_tailed(DType::bf16, shape, 1), gamma = uniform(DType::f32, {256}, 3, 0.5, 1.5);
  Arena scratch(rms_norm_quantize_scratch_bytes(140, 256, DeviceKind::cpu), {});
  Casts both(shape), one(shape), other(shape);
  RmsNormQuantizeArgs args{.row_tiles = both.row_tiles(),
                           .column_tiles = both.column_tiles(),
                           .x = x,
                           .gamma = gamma,
                           .eps = 1e-5f,
                           .scratch = scratch,
                           .stream = stream};
  rms_norm_quantize(args);
  args.row_tiles = one.row_tiles();
  args.column_tiles = {};
  rms_norm_quantize(args);
  args.row_tiles = {};
  args.column_tiles = other.column_tiles();
  rms_norm_quantize(args);
  EXPECT_TRUE(same_bits(one.row_values, both.row_values));
  EXPECT_TRUE(same_bits(one.row_scales, both.row_scales));
  EXPECT_TRUE(same_bits(other.column_values, both.column_values));
  EXPECT_TRUE(same_bits(other.column_scales, both.column_scales));
  // Another eps is seen: the comparison can fail.
  args.eps = 1.0f;
  rms_norm_quantize(args);
  EXPECT_FALSE(same_bits(other.column_scales, both.column_scales));
}

TEST(RmsNormQuantize, BrokenContracts) {
  Workers workers(1);
  Stream stream(workers);
  const Tensor x(DType::bf16, {4, 128}), gamma(DType::f32, {128}), short_gamma(DType::f32, {64});
  Tensor codes(DType::e4m3, {4, 128}), fewer(DType::e4m3, {3, 128}), scales(DType::f32, {4, 1});
  Arena scratch(rms_norm_quantize_scratch_bytes(4, 128, DeviceKind::cpu), {});
  const auto run = [&](ConstTensorView gain, TensorView values, TensorView of, Granularity granularity) {
    rms_norm_quantize({.row_tiles = {values, of, granularity},
                       .x = x,
                       .gamma = gain,
                       .eps = 1e-5f,
                       .scratch = scratch,
                       .stream = stream});
  };
  EXPECT_NO_THROW(run(gamma, codes, scales, kRowTile128));
  EXPECT_THROW(run(short_gamma, codes, scales, kRowTile128), Error);
  EXPECT_THROW(run(gamma, fewer, scales, kRowTile128), Error);
  EXPECT_THROW(run(gamma, codes, scales.view().slice(0, 0, 1), kBlock128), Error);
}

}  // namespace
}  // namespace shoestring
