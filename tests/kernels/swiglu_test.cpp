#include "kernels/swiglu.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/base/check.h"
#include "kernels/base/workers.h"
#include "tests/kernels/casts.h"
#include "tests/support/compare.h"
#include "tests/support/fill.h"
#include "tests/support/gradient.h"
#include "tests/support/recorded_bits.h"
#include "tests/support/row_coverage.h"

namespace shoestring {
namespace {

using testing::Bound;
using testing::cast;
using testing::Fenced;
using testing::hash_of;
using testing::heavy_tailed;
using testing::normal;
using testing::same_bits;
using testing::uniform;
using testing::within;

// Inputs rounded to their formats, the same numbers in double, and double's results.
struct Case {
  Tensor gate_up, dy, weight;
  Tensor y64, dgate_up64, dweight64, dgate_up_magnitude, dweight_magnitude;

  Case(DType act, std::int64_t rows, std::int64_t f, float clamp, Stream& stream)
      : gate_up(heavy_tailed(act, {rows, 2 * f}, 1)),
        dy(normal(act, {rows, f}, 2)),
        weight(uniform(DType::f32, {rows}, 3, 0.05, 1.0)) {
    in_double(cast(gate_up, DType::f64), clamp, stream);
  }

  void in_double(const Tensor& gate_up64, float clamp, Stream& stream) {
    const std::int64_t rows = dy.shape()[0], f = dy.shape()[1];
    const Tensor dy64 = cast(dy, DType::f64), weight64 = cast(weight, DType::f64);
    y64 = Tensor(DType::f64, {rows, f});
    dgate_up64 = Tensor(DType::f64, {rows, 2 * f});
    dweight64 = Tensor(DType::f64, {rows});
    swiglu_gradient({.dgate_up = dgate_up64,
                     .drow_weight = dweight64,
                     .y = y64,
                     .dy = dy64,
                     .gate_up = unscaled(gate_up64),
                     .row_weight = weight64,
                     .clamp = clamp,
                     .stream = stream});
    magnitudes(gate_up64, dy64, weight64, clamp);
  }

  // The slope s (1 + g (1 - s)) cancels near g = -1.28, the row weight's gradient anywhere.
  void magnitudes(const Tensor& gate_up64, const Tensor& dy64, const Tensor& weight64, float clamp) {
    const std::int64_t rows = dy.shape()[0], f = dy.shape()[1];
    dgate_up_magnitude = Tensor(DType::f64, {rows, 2 * f});
    dweight_magnitude = Tensor(DType::f64, {rows});
    const double limit = clamp > 0 ? static_cast<double>(clamp) : INFINITY;
    for (std::int64_t i = 0; i < rows * f; ++i) {
      const std::int64_t row = i / f, at = row * 2 * f + i % f;
      const double g = std::min(gate_up64.as<double>()[at], limit);
      const double u = std::clamp(gate_up64.as<double>()[at + f], -limit, limit);
      const double s = 1 / (1 + std::exp(-g));
      const double scale = std::abs(weight64.as<double>()[row] * dy64.as<double>()[i]);
      dgate_up_magnitude.as<double>()[at] = scale * std::abs(u) * s * (1 + std::abs(g) / (1 + std::exp(g)));
      dgate_up_magnitude.as<double>()[at + f] = scale * std::abs(g) * s;
      dweight_magnitude.as<double>()[row] += std::abs(dy64.as<double>()[i] * g * s * u);
    }
  }
};

constexpr double kFloor = 1e-25;  // 2e-35 times the inputs' largest values

// The sigmoid is within 3 ulp (6 u), or within 2^-13.5 where the output is bf16; then at most six more roundings.
// Below g = -80 the sigmoid is off by 2e-35 at most: the floor.
double sigmoid_error(DType act) {
  return act == DType::bf16 ? std::pow(2.0, -13.5) : 6 * testing::unit_roundoff(DType::f32);
}
Bound output_bound(DType act) {
  Bound bound = testing::rounding_bound(act, DType::f32, 6);
  bound.relative += sigmoid_error(act);
  bound.floor = kFloor;
  return bound;
}
// s (1 + g (1 - s)): the sigmoid and its complement both carry the error.
Bound gradient_bound(DType act) {
  return {.relative = 1.01 * testing::unit_roundoff(act),
          .absolute = 2 * sigmoid_error(act) + 8 * testing::unit_roundoff(DType::f32),
          .floor = kFloor};
}
Bound weight_bound(DType act, std::int64_t f) {
  return {.relative = testing::unit_roundoff(DType::f32),
          .absolute = sigmoid_error(act) + 6 * testing::unit_roundoff(DType::f32) + testing::sum_error(f, DType::f32)};
}

void expect_all_variants(const Case& c, ConstScaledView gate_up, float clamp, Stream& stream) {
  const std::int64_t rows = c.dy.shape()[0], f = c.dy.shape()[1];
  const DType act = c.dy.dtype();
  for (const auto& variant : swiglu_forward_variants()) {
    SCOPED_TRACE(fmt::format("{} {} [{}, {}]", variant.name, name(act), rows, f));
    Fenced y(act, {rows, f}, 7);
    const SwigluArgs args{.y = y, .gate_up = gate_up, .row_weight = c.weight, .clamp = clamp, .stream = stream};
    if (!testing::runs(variant, args)) continue;
    variant.run(args);
    EXPECT_TRUE(within(y, c.y64, output_bound(act)));
    EXPECT_TRUE(y.intact());
  }
  for (const auto& variant : swiglu_gradient_variants()) {
    SCOPED_TRACE(fmt::format("{} {} [{}, {}]", variant.name, name(act), rows, f));
    Fenced y(act, {rows, f}), dgate_up(act, {rows, 2 * f}, 3), dweight(DType::f32, {rows});
    const SwigluGradientArgs args{.dgate_up = dgate_up,
                                  .drow_weight = dweight,
                                  .y = y,
                                  .dy = c.dy,
                                  .gate_up = gate_up,
                                  .row_weight = c.weight,
                                  .clamp = clamp,
                                  .stream = stream};
    if (!testing::runs(variant, args)) continue;
    variant.run(args);
    EXPECT_TRUE(within(y, c.y64, output_bound(act)));
    Bound bound = gradient_bound(act);
    bound.allow_zeros = clamp > 0;
    EXPECT_TRUE(within(dgate_up, c.dgate_up64, bound, c.dgate_up_magnitude));
    EXPECT_TRUE(within(dweight, c.dweight64, weight_bound(act, f), c.dweight_magnitude));
    EXPECT_TRUE(y.intact() && dgate_up.intact() && dweight.intact());
  }
}

TEST(Swiglu, EveryVariantAgreesWithDouble) {
  Workers workers(2);
  Stream stream(workers);
  for (const DType act : {DType::f32, DType::bf16}) {
    for (const Shape& shape : {Shape{1, 1}, Shape{3, 31}, Shape{2, 32}, Shape{5, 33}, Shape{260, 96}, Shape{3, 2048}}) {
      for (const float clamp : {0.0f, 2.0f}) {
        const Case c(act, shape[0], shape[1], clamp, stream);
        expect_all_variants(c, unscaled(c.gate_up), clamp, stream);
      }
    }
  }
}

TEST(Swiglu, ReadsTiledE4M3) {
  Workers workers(2);
  Stream stream(workers);
  for (const DType scale : {DType::f32, DType::e8m0}) {
    const std::int64_t rows = 9, f = 256;
    Tensor values = normal(DType::e4m3, {rows, 2 * f}, 1, 20.0), scales(scale, {rows, 4});
    testing::fill_uniform(scales, 2, 0.01, 0.3);
    Tensor wide(DType::f64, {rows, 2 * f});
    for (std::int64_t i = 0; i < wide.shape().elements(); ++i) {
      const std::int64_t tile = i / (2 * f) * 4 + i % (2 * f) / 128;
      wide.as<double>()[i] = static_cast<double>(static_cast<float>(testing::value_at(values, i)) *
                                                 static_cast<float>(testing::value_at(scales, tile)));
    }
    for (const DType act : {DType::f32, DType::bf16}) {
      Case c(act, rows, f, 0, stream);
      c.in_double(wide, 0, stream);
      expect_all_variants(c, {values.view(), scales.view(), kRowTile128}, 0, stream);
    }
  }
}

TEST(Swiglu, InPlaceWithoutWeights) {
  Workers workers(1);
  Stream stream(workers);
  const Case c(DType::bf16, 4, 80, 0, stream);
  for (const auto& variant : swiglu_gradient_variants()) {
    Tensor dgate_up(DType::bf16, {4, 160}), y(DType::bf16, {4, 80});
    const SwigluGradientArgs apart{
        .dgate_up = dgate_up, .y = y, .dy = c.dy, .gate_up = unscaled(c.gate_up), .stream = stream};
    if (!testing::runs(variant, apart)) continue;
    variant.run(apart);
    Tensor both = testing::copy(c.gate_up), dy = testing::copy(c.dy);
    variant.run({.dgate_up = both, .y = dy, .dy = dy, .gate_up = unscaled(both), .stream = stream});
    EXPECT_TRUE(same_bits(both, dgate_up)) << variant.name;
    EXPECT_TRUE(same_bits(dy, y)) << variant.name;
  }
}

TEST(Swiglu, GradientsMatchCentralDifferences) {
  Workers workers(1);
  Stream stream(workers);
  for (const float clamp : {0.0f, 0.7f}) {
    Tensor gate_up = normal(DType::f64, {3, 10}, 1), weight = uniform(DType::f64, {3}, 2, 0.2, 1.0);
    const Tensor dy = normal(DType::f64, {3, 5}, 3);
    Tensor y(DType::f64, {3, 5}), dgate_up(DType::f64, {3, 10}), dweight(DType::f64, {3});
    const auto loss = [&] {
      swiglu_forward({.y = y, .gate_up = unscaled(gate_up), .row_weight = weight, .clamp = clamp, .stream = stream});
      return testing::projection(y, dy);
    };
    swiglu_gradient({.dgate_up = dgate_up,
                     .drow_weight = dweight,
                     .dy = dy,
                     .gate_up = unscaled(gate_up),
                     .row_weight = weight,
                     .clamp = clamp,
                     .stream = stream});
    EXPECT_TRUE(testing::gradient_matches(loss, gate_up, dgate_up, {.step = 1e-4})) << clamp;
    EXPECT_TRUE(testing::gradient_matches(loss, weight, dweight));
    dgate_up.as<double>()[3] += 1e-5;
    EXPECT_FALSE(testing::gradient_matches(loss, gate_up, dgate_up, {.step = 1e-4}));
  }
}

TEST(Swiglu, SameBitsForAnyNumberOfWorkers) {
  Workers one(1);
  Stream alone(one);
  const Case c(DType::bf16, 333, 72, 0, alone);
  Tensor y1, dgate_up1, dweight1;
  for (const int count : {1, 2, 3}) {
    Workers workers(count);
    Stream stream(workers);
    Tensor y(DType::bf16, {333, 72}), dgate_up(DType::bf16, {333, 144}), dweight(DType::f32, {333});
    swiglu_forward({.y = y, .gate_up = unscaled(c.gate_up), .row_weight = c.weight, .stream = stream});
    swiglu_gradient({.dgate_up = dgate_up,
                     .drow_weight = dweight,
                     .dy = c.dy,
                     .gate_up = unscaled(c.gate_up),
                     .row_weight = c.weight,
                     .stream = stream});
    if (count > 1) {
      EXPECT_TRUE(same_bits(y, y1) && same_bits(dgate_up, dgate_up1) && same_bits(dweight, dweight1));
      continue;
    }
    y1 = std::move(y);
    dgate_up1 = std::move(dgate_up);
    dweight1 = std::move(dweight);
  }
}

// Hashes of y, then of dgate_up and of drow_weight, written down on AVX2.
struct Recorded {
  DType input, act;
  std::uint64_t y, dgate_up, dweight;
};
constexpr Recorded kRecorded[] = {
    {DType::f32, DType::f32, 0xEF869792EA8F0B2D, 0x8F4D91DDF2F6CC62, 0x62406E003FFA877E},
    {DType::bf16, DType::bf16, 0x0B3780C07EF5CB04, 0x71C70E48E620720B, 0xD53554964DCEF445},
    {DType::e4m3, DType::f32, 0x49BB47396C396A0B, 0x250F8DBC9D66DC59, 0x16AA97B3EDA7BA66},
    {DType::e4m3, DType::bf16, 0xFB695911BC4C4A60, 0xBBD5D9530D4A2419, 0x863323EE0CB910B1},
};

TEST(Swiglu, TheVectorRowGivesTheSameBitsOnEveryProcessor) {
  const auto simd = [](const auto& variants) {
    return *std::find_if(variants.begin(), variants.end(), [](const auto& row) { return row.name == "simd"; });
  };
  Workers workers(2);
  Stream stream(workers);
  for (const Recorded& recorded : kRecorded) {
    SCOPED_TRACE(fmt::format("{} to {}", name(recorded.input), name(recorded.act)));
    const bool tiled = recorded.input == DType::e4m3;
    const std::int64_t rows = 9, f = tiled ? 256 : 213;
    const Tensor gate_up = uniform(recorded.input, {rows, 2 * f}, 1, -9, 9);
    const Tensor scales = uniform(DType::f32, {rows, f / 64}, 2, 0.3, 1.1);
    const Tensor dy = uniform(recorded.act, {rows, f}, 3, -2, 2), weight = uniform(DType::f32, {rows}, 4, 0.1, 1.0);
    const ConstScaledView in = tiled ? ConstScaledView{gate_up, scales, kRowTile128} : unscaled(gate_up);
    Tensor y(recorded.act, {rows, f}), dgate_up(recorded.act, {rows, 2 * f}), dweight(DType::f32, {rows});
    const SwigluArgs args{.y = y, .gate_up = in, .row_weight = weight, .clamp = 7, .stream = stream};
    const auto forward = simd(swiglu_forward_variants());
    if (!forward.refuses(args).empty()) GTEST_SKIP() << forward.refuses(args);
    forward.run(args);
    EXPECT_EQ(hash_of({y}), recorded.y);
    simd(swiglu_gradient_variants())
        .run({.dgate_up = dgate_up,
              .drow_weight = dweight,
              .dy = dy,
              .gate_up = in,
              .row_weight = weight,
              .clamp = 7,
              .stream = stream});
    EXPECT_EQ(hash_of({dgate_up}), recorded.dgate_up);
    EXPECT_EQ(hash_of({dweight}), recorded.dweight);
  }
}

TEST(Swiglu, DamagedResultsLeaveTheBounds) {
  Workers workers(1);
  Stream stream(workers);
  for (const DType act : {DType::f32, DType::bf16}) {
    const Case c(act, 6, 128, 0, stream);
    Tensor y(act, {6, 128}), dgate_up(act, {6, 256}), dweight(DType::f32, {6});
    Tensor swapped = testing::copy(c.weight);
    std::swap(swapped.as<float>()[0], swapped.as<float>()[1]);
    SwigluGradientArgs args{.dgate_up = dgate_up,
                            .drow_weight = dweight,
                            .y = y,
                            .dy = c.dy,
                            .gate_up = unscaled(c.gate_up),
                            .row_weight = swapped,
                            .stream = stream};
    swiglu_gradient(args);
    EXPECT_FALSE(within(y, c.y64, output_bound(act)));
    EXPECT_FALSE(within(dgate_up, c.dgate_up64, gradient_bound(act), c.dgate_up_magnitude));
    EXPECT_TRUE(within(dweight, c.dweight64, weight_bound(act, 128), c.dweight_magnitude));  // does not depend on w
    Tensor dropped = testing::copy(c.dy);
    for (std::int64_t j = 112; j < 128; ++j) testing::set_value(dropped, j, 0);  // the tail of one row
    args.dy = dropped;
    swiglu_gradient(args);
    EXPECT_FALSE(within(dweight, c.dweight64, weight_bound(act, 128), c.dweight_magnitude));
  }
}

TEST(Swiglu, QuantisedOutputEqualsQuantisingTheOutput) {
  Workers workers(2);
  Stream stream(workers);
  const std::int64_t f = 256;
  const std::vector<std::int64_t> segments = {0, 5, 5, 133, 700, 701};
  const std::int64_t rows = segments.back();
  const Tensor gate_up = heavy_tailed(DType::bf16, {rows, 2 * f}, 4);
  const Tensor weight = uniform(DType::f32, {rows}, 5, 0.1, 1.0);
  testing::Casts apart({rows, f}, segments), fused({rows, f}, segments);
  Tensor y(DType::bf16, {rows, f});
  swiglu_forward({.y = y, .gate_up = unscaled(gate_up), .row_weight = weight, .stream = stream});
  apart.quantize_from(y, segments, ScaleKind::f32, stream);
  Arena scratch(swiglu_quantize_scratch_bytes(f), Device{});
  swiglu_quantize({.row_tiles = fused.row_tiles(),
                   .column_tiles = fused.column_tiles(),
                   .gate_up = unscaled(gate_up),
                   .row_weight = weight,
                   .segments = segments,
                   .counts = &fused.counts,
                   .scratch = scratch,
                   .stream = stream});
  testing::expect_same_casts(fused, apart);
  EXPECT_EQ(scratch.used_bytes(), 0);
}

TEST(Swiglu, BrokenContracts) {
  Workers workers(1);
  Stream stream(workers);
  Tensor y(DType::f32, {2, 8}), gate_up(DType::f32, {2, 15}), weight(DType::f32, {3}), right(DType::f32, {2, 16});
  EXPECT_THROW(swiglu_forward({.y = y, .gate_up = unscaled(gate_up), .stream = stream}), Error);
  EXPECT_THROW(swiglu_forward({.y = y, .gate_up = unscaled(right), .row_weight = weight, .stream = stream}), Error);
}

}  // namespace
}  // namespace shoestring
