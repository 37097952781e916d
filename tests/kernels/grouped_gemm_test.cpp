// Every variant of the grouped products against the dense reference, group by group.
#include "kernels/grouped_gemm.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include "kernels/base/check.h"
#include "kernels/base/workers.h"
#include "kernels/quantize.h"
#include "tests/support/compare.h"
#include "tests/support/fill.h"
#include "tests/support/row_coverage.h"

namespace shoestring {
namespace {

using testing::Bound;
using testing::Fenced;
using testing::within;

constexpr int kWorkers = 2;
using Offsets = std::vector<std::int64_t>;

const Offsets kUneven{0, 0, 1, 131, 131, 164, 292, 292};  // empty, one row, a tile and more, empty, 33, 128, empty

struct Operand {
  Tensor values;
  Tensor scales;
  ConstScaledView view;
};

/// [rows, columns]; tall tiles restart at every segment.
Operand make(DType dtype, Granularity granularity, ScaleKind kind, const Shape& shape, const Offsets& segments,
             std::uint64_t seed, Stream& stream) {
  Operand o;
  o.values = Tensor(dtype, shape);
  const Tensor plain = testing::heavy_tailed(DType::f32, shape, seed);
  if (size_bytes(dtype) != 1) {
    testing::assign(o.values, plain);
    o.view = unscaled(o.values);
    return o;
  }
  o.scales = Tensor(DType::f32, tile_scales_shape(shape[0], shape[1], granularity, segments));
  const ScaledView scaled{o.values, o.scales, granularity};
  QuantizeArgs args{.x = plain, .scale_kind = kind, .segments = segments, .stream = stream};
  (granularity == kColumnTile128 ? args.column_tiles : args.row_tiles) = scaled;
  quantize(args);
  o.view = scaled;
  return o;
}

Offsets equal_segments(std::int64_t count, std::int64_t rows) {
  Offsets offsets;
  for (std::int64_t e = 0; e <= count; ++e) offsets.push_back(e * rows);
  return offsets;
}

double scaled_value(const ConstScaledView& v, std::int64_t row, std::int64_t column, std::int64_t scale_row) {
  const double value = testing::value_at(v.values, row * v.values.shape[1] + column);
  if (!v.scaled()) return value;
  const std::int64_t tile = v.granularity.columns == 0 ? 0 : column / v.granularity.columns;
  return value * testing::value_at(v.scales, scale_row * v.scales.shape[1] + tile);
}

/// The operand times its scales, in double; tall tiles restart at `segments`.
Tensor dequantised(const ConstScaledView& v, const Offsets& segments) {
  Tensor out(DType::f64, v.values.shape);
  const std::int64_t tall = std::max<std::int64_t>(1, v.granularity.rows);
  for (std::size_t e = 0; e + 1 < segments.size(); ++e) {
    const std::int64_t first = segment_tiles(segments, static_cast<std::int64_t>(e), tall);
    for (std::int64_t r = segments[e]; r < segments[e + 1]; ++r) {
      for (std::int64_t c = 0; c < v.values.shape[1]; ++c) {
        out.as<double>()[r * v.values.shape[1] + c] = scaled_value(v, r, c, first + (r - segments[e]) / tall);
      }
    }
  }
  return out;
}

struct Expected {
  Tensor c;
  Tensor magnitude;
};

void add_term(Expected& e, std::int64_t at, double term) {
  e.c.as<double>()[at] += term;
  e.magnitude.as<double>()[at] += std::abs(term);
}

Expected start_from(ConstTensorView start, const Shape& shape) {
  Expected e{Tensor(DType::f64, shape), Tensor(DType::f64, shape)};
  if (start.empty()) return e;
  for (std::int64_t i = 0; i < shape.elements(); ++i) add_term(e, i, testing::value_at(start, i));
  return e;
}

Bound bound_of(DType c, std::int64_t k) {
  Bound bound = testing::rounding_bound(c, DType::f32, 4, k + k / 32 + 4);
  bound.allow_zeros = true;  // empty groups
  return bound;
}

struct Case {
  DType dtype;
  ScaleKind kind = ScaleKind::f32;
  bool transposed = false;
  bool packed = false;
  bool accumulate = false;
  DType c = DType::f32;
};

void check_rows_grouped(const Case& t, const Offsets& offsets) {
  SCOPED_TRACE(fmt::format("{} transposed {} packed {}", name(t.dtype), t.transposed, t.packed));
  constexpr std::int64_t kN = 72, kK = 200;
  Workers workers(kWorkers);
  Stream stream(workers);
  const auto experts = static_cast<std::int64_t>(offsets.size()) - 1;
  const std::int64_t rows = offsets.back();
  const std::int64_t stack_rows = t.transposed ? kK : kN;
  const Offsets stack = equal_segments(experts, stack_rows);
  const Operand a = make(t.dtype, kRowTile128, t.kind, {rows, kK}, {0, rows}, 1, stream);
  const Operand b = make(t.dtype, kBlock128, t.kind, {experts * stack_rows, t.transposed ? kN : kK}, stack, 2, stream);
  const Tensor start = testing::normal(t.c, {rows, kN}, 3);
  Expected want = start_from(t.accumulate ? ConstTensorView(start) : ConstTensorView{}, {rows, kN});
  const Tensor da = dequantised(a.view, {0, rows});
  const Tensor db = dequantised(b.view, stack);
  for (std::int64_t e = 0; e < experts; ++e) {
    for (std::int64_t r = offsets[static_cast<std::size_t>(e)]; r < offsets[static_cast<std::size_t>(e) + 1]; ++r) {
      for (std::int64_t j = 0; j < kN; ++j) {
        for (std::int64_t k = 0; k < kK; ++k) {
          const std::int64_t at = t.transposed ? (e * kK + k) * kN + j : (e * kN + j) * kK + k;
          add_term(want, r * kN + j, da.as<double>()[r * kK + k] * db.as<double>()[at]);
        }
      }
    }
  }
  const bool two = t.kind == ScaleKind::power_of_two;
  Arena scratch(grouped_gemm_scratch_bytes(rows, kN, kK, experts, kWorkers, t.packed), Device{});
  int ran = 0;
  for (const auto& row : grouped_gemm_variants()) {
    SCOPED_TRACE(std::string(row.name));
    pin_variant("gemm", row.name);
    PackedMatrix packed;
    if (t.packed) pack_experts(b.view, experts, t.transposed, two, packed, stream);
    pin_variant("gemm", "");
    Fenced c(t.c, {rows, kN}, 8);
    if (t.accumulate) testing::assign(c, start);
    const GroupedGemmArgs args{.c = c,
                               .a = a.view,
                               .b = b.view,
                               .b_transposed = t.transposed,
                               .offsets = offsets,
                               .accumulate = t.accumulate,
                               .power_of_two_scales = two,
                               .packed_b = t.packed ? &packed : nullptr,
                               .scratch = scratch,
                               .stream = stream};
    if (!testing::runs(row, args)) continue;
    pin_variant("grouped_gemm", row.name);
    grouped_gemm(args);
    pin_variant("grouped_gemm", "");
    EXPECT_TRUE(within(c, want.c, bound_of(t.c, kK), want.magnitude));
    EXPECT_TRUE(c.intact());
    ++ran;
  }
  EXPECT_GE(ran, 2);
}

void check_k_grouped(const Case& t, const Offsets& offsets) {
  SCOPED_TRACE(std::string(name(t.dtype)));
  constexpr std::int64_t kM = 40, kN = 72;
  Workers workers(kWorkers);
  Stream stream(workers);
  const auto experts = static_cast<std::int64_t>(offsets.size()) - 1;
  const std::int64_t rows = offsets.back();
  const Operand a = make(t.dtype, kColumnTile128, t.kind, {rows, kM}, offsets, 1, stream);
  const Operand b = make(t.dtype, kColumnTile128, t.kind, {rows, kN}, offsets, 2, stream);
  const Tensor start = testing::normal(t.c, {experts * kM, kN}, 3);
  Expected want = start_from(t.accumulate ? ConstTensorView(start) : ConstTensorView{}, {experts * kM, kN});
  const Tensor da = dequantised(a.view, offsets);
  const Tensor db = dequantised(b.view, offsets);
  for (std::int64_t e = 0; e < experts; ++e) {
    for (std::int64_t r = offsets[static_cast<std::size_t>(e)]; r < offsets[static_cast<std::size_t>(e) + 1]; ++r) {
      for (std::int64_t i = 0; i < kM; ++i) {
        for (std::int64_t j = 0; j < kN; ++j) {
          add_term(want, (e * kM + i) * kN + j, da.as<double>()[r * kM + i] * db.as<double>()[r * kN + j]);
        }
      }
    }
  }
  Arena scratch(grouped_weight_gemm_scratch_bytes(rows, kM, kN, experts, kWorkers), Device{});
  int ran = 0;
  for (const auto& row : grouped_weight_gemm_variants()) {
    SCOPED_TRACE(std::string(row.name));
    Fenced c(t.c, {experts * kM, kN}, 8);
    if (t.accumulate) testing::assign(c, start);
    const GroupedWeightGemmArgs args{.c = c,
                                     .a = a.view,
                                     .b = b.view,
                                     .offsets = offsets,
                                     .accumulate = t.accumulate,
                                     .power_of_two_scales = t.kind == ScaleKind::power_of_two,
                                     .scratch = scratch,
                                     .stream = stream};
    if (!testing::runs(row, args)) continue;
    row.run(args);
    EXPECT_TRUE(within(c, want.c, bound_of(t.c, rows), want.magnitude));
    EXPECT_TRUE(c.intact());
    ++ran;
  }
  EXPECT_GE(ran, 2);
}

TEST(GroupedGemm, RowsGrouped) {
  for (const DType dtype : {DType::f32, DType::bf16, DType::e4m3}) {
    for (const bool transposed : {false, true}) {
      for (const bool packed : {false, true}) {
        check_rows_grouped({.dtype = dtype, .transposed = transposed, .packed = packed}, kUneven);
      }
    }
  }
  check_rows_grouped({.dtype = DType::e4m3, .kind = ScaleKind::power_of_two, .packed = true, .c = DType::bf16},
                     kUneven);
  check_rows_grouped({.dtype = DType::bf16, .accumulate = true}, {0, 50});
}

TEST(GroupedGemm, RowsOfTokensGrouped) {
  for (const DType dtype : {DType::f32, DType::bf16, DType::e4m3}) {
    for (const bool accumulate : {false, true}) check_k_grouped({.dtype = dtype, .accumulate = accumulate}, kUneven);
  }
  check_k_grouped({.dtype = DType::e4m3, .kind = ScaleKind::power_of_two, .accumulate = true}, kUneven);
}

// Rows of several sources in one call are the calls of each source, bit for bit, forward and back; gradients of the
// sources stand apart and nothing between them is touched.
TEST(GroupedGemm, SourcesAreRunsOfTheSameExperts) {
  constexpr std::int64_t kN = 72, kK = 160, kExperts = 3, kApart = 5;
  const Offsets all = {0, 7, 7, 40, 41, 90, 130};  // two sources of three experts
  const std::int64_t rows = all.back();
  Workers workers(kWorkers);
  Stream stream(workers);
  const Tensor a = testing::heavy_tailed(DType::bf16, {rows, kK}, 1);
  const Tensor b = testing::heavy_tailed(DType::bf16, {kExperts * kN, kK}, 2);
  const Tensor dy = testing::heavy_tailed(DType::bf16, {rows, kN}, 3);
  Arena scratch(grouped_gemm_scratch_bytes(rows, kN, kK, 6, kWorkers, false) +
                    grouped_weight_gemm_scratch_bytes(rows, kN, kK, 6, kWorkers),
                Device{});
  Tensor together(DType::f32, {rows, kN}), alone(DType::f32, {rows, kN});
  grouped_gemm({.c = together,
                .a = unscaled(a.view()),
                .b = unscaled(b.view()),
                .offsets = all,
                .scratch = scratch,
                .stream = stream});
  const std::int64_t source = kExperts * kN * kK + kApart;
  Tensor gradients = testing::normal(DType::f32, {2 * source}, 4);
  Tensor expected = testing::copy(gradients);
  TensorView apart = gradients.view();
  apart.shape = {2, kExperts * kN, kK};
  apart.strides = {source, kK, 1};
  grouped_weight_gemm({.c = apart,
                       .a = unscaled(dy.view()),
                       .b = unscaled(a.view()),
                       .offsets = all,
                       .accumulate = true,
                       .scratch = scratch,
                       .stream = stream});
  for (std::int64_t s = 0; s < 2; ++s) {
    Offsets own(all.begin() + s * kExperts, all.begin() + (s + 1) * kExperts + 1);
    const std::int64_t begin = own.front();
    for (std::int64_t& offset : own) offset -= begin;
    const ConstTensorView rows_a = a.view().slice(0, begin, own.back());
    grouped_gemm({.c = alone.view().slice(0, begin, own.back()),
                  .a = unscaled(rows_a),
                  .b = unscaled(b.view()),
                  .offsets = own,
                  .scratch = scratch,
                  .stream = stream});
    grouped_weight_gemm({.c = expected.view().slice(0, s * source, source - kApart).reshaped({kExperts * kN, kK}),
                         .a = unscaled(dy.view().slice(0, begin, own.back())),
                         .b = unscaled(rows_a),
                         .offsets = own,
                         .accumulate = true,
                         .scratch = scratch,
                         .stream = stream});
  }
  EXPECT_TRUE(testing::same_bits(together, alone));
  EXPECT_TRUE(testing::same_bits(gradients, expected));
}

TEST(GroupedGemm, NothingRouted) {
  check_rows_grouped({.dtype = DType::bf16}, {0, 0, 0});
  check_k_grouped({.dtype = DType::bf16}, {0, 0, 0});
  check_k_grouped({.dtype = DType::bf16, .accumulate = true}, {0, 0, 0});
}

TEST(GroupedGemm, TilesAreCountedGroupByGroup) {
  EXPECT_EQ(segment_tiles(kUneven, 0), 0);
  EXPECT_EQ(segment_tiles(kUneven, 2), 1);
  EXPECT_EQ(segment_tiles(kUneven, 3), 3);
  EXPECT_EQ(segment_tiles(kUneven, 7), 5);
}

TEST(GroupedGemm, AGroupInTheWrongPlaceIsSeen) {
  Workers workers(1);
  Stream stream(workers);
  const Tensor a = testing::normal(DType::bf16, {60, 50}, 1);
  const Tensor b = testing::normal(DType::bf16, {3 * 20, 50}, 2);
  Arena scratch(grouped_gemm_scratch_bytes(60, 20, 50, 3, 1, false), Device{});
  const auto run = [&](const Offsets& offsets) {
    Tensor c(DType::f32, {60, 20});
    grouped_gemm(
        {.c = c, .a = unscaled(a), .b = unscaled(b), .offsets = offsets, .scratch = scratch, .stream = stream});
    return c;
  };
  const Tensor right = run({0, 20, 40, 60});
  EXPECT_TRUE(testing::same_bits(run({0, 20, 40, 60}), right));
  EXPECT_FALSE(within(run({0, 21, 40, 60}), right, bound_of(DType::f32, 50)));
}

TEST(GroupedGemm, MisfitsAreNamed) {
  Workers workers(1);
  Stream stream(workers);
  Arena scratch(1 << 16, Device{});
  Tensor a(DType::f32, {4, 3});
  Tensor b(DType::f32, {10, 3});
  Tensor c(DType::f32, {4, 5});
  const auto run = [&](const Offsets& offsets) {
    grouped_gemm(
        {.c = c, .a = unscaled(a), .b = unscaled(b), .offsets = offsets, .scratch = scratch, .stream = stream});
  };
  EXPECT_NO_THROW(run({0, 1, 4}));
  EXPECT_THROW(run({0, 1, 5}), Error);
  EXPECT_THROW(run({0, 3, 1, 4}), Error);
  EXPECT_THROW(run({0, 1, 2, 4}), Error);  // three groups, ten rows of b
}

}  // namespace
}  // namespace shoestring
