// Every variant against the reference in double, on the dequantised operands.
#include "kernels/gemm.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <vector>

#include "kernels/base/check.h"
#include "kernels/base/workers.h"
#include "tests/kernels/gemm_operands.h"
#include "tests/support/row_coverage.h"

namespace shoestring {
namespace {

using testing::bound_of;
using testing::Expected;
using testing::expected;
using testing::Fenced;
using testing::Make;
using testing::make;
using testing::Operand;
using testing::Order;
using testing::within;

constexpr int kWorkers = 2;

struct Case {
  std::int64_t m, n, k;
  DType c = DType::f32;
  Make a{}, b{};
  bool accumulate = false;
  bool packed = false;
  bool biased = false;
};

std::string describe(const Case& t) {
  return fmt::format("m={} n={} k={} {}x{} -> {}{}{}{} order {}{}", t.m, t.n, t.k, name(t.a.dtype), name(t.b.dtype),
                     name(t.c), t.accumulate ? " +=" : "", t.packed ? " packed" : "", t.biased ? " bias" : "",
                     static_cast<int>(t.a.order), static_cast<int>(t.b.order));
}

bool powers_of_two(const Make& how) { return how.kind != ScaleKind::f32; }

/// Runs `t` on every variant that takes it; `variants` counts them.
void cross_check(const Case& t, int least_variants = 2) {
  SCOPED_TRACE(describe(t));
  Workers workers(kWorkers);
  Stream stream(workers);
  const Operand a = make(t.a, t.m, t.k, 1, stream);
  const Operand b = make(t.b, t.n, t.k, 2, stream);
  const Tensor start = testing::normal(t.c, {t.m, t.n}, 3);
  const Tensor bias = testing::normal(DType::f32, {t.n}, 4);
  const ConstTensorView bias_view = t.biased ? ConstTensorView(bias) : ConstTensorView{};
  const Expected want = expected(a.view, b.view, t.accumulate ? ConstTensorView(start) : ConstTensorView{}, bias_view);
  Arena scratch(gemm_scratch_bytes(t.m, t.n, t.k, kWorkers, t.packed), Device{});
  int ran = 0;
  for (const Variant<GemmArgs>& row : gemm_variants()) {
    SCOPED_TRACE(std::string(row.name));
    Fenced c(t.c, {t.m, t.n}, 32);
    if (t.accumulate) testing::assign(c, start);
    PackedMatrix packed;
    const bool two = powers_of_two(t.a) && powers_of_two(t.b);
    pin_variant("gemm", row.name);
    if (t.packed) pack(b.view, two, packed, stream);
    GemmArgs args{.c = c,
                  .a = a.view,
                  .b = b.view,
                  .accumulate = t.accumulate,
                  .power_of_two_scales = two,
                  .packed_b = t.packed ? &packed : nullptr,
                  .bias = bias_view,
                  .scratch = scratch,
                  .stream = stream};
    if (testing::runs(row, args)) {
      gemm(args);
      EXPECT_TRUE(within(c, want.c, bound_of(t.c, t.k), want.magnitude));
      EXPECT_TRUE(c.intact());
      EXPECT_EQ(scratch.used_bytes(), 0);
      ++ran;
    }
    pin_variant("gemm", "");
  }
  EXPECT_GE(ran, least_variants);
}

const std::vector<DType> kFormats{DType::f32, DType::bf16, DType::e4m3};

TEST(Gemm, Sizes) {
  for (const DType dtype : kFormats) {
    for (const auto& [m, n, k] : std::vector<std::array<std::int64_t, 3>>{{1, 1, 1},
                                                                          {1, 33, 127},
                                                                          {31, 32, 128},
                                                                          {32, 31, 33},
                                                                          {33, 65, 129},
                                                                          {129, 17, 257},
                                                                          {13, 127, 31},
                                                                          {200, 40, 600},
                                                                          {16, 48, 64},
                                                                          {5, 15, 7},
                                                                          {6, 16, 8},
                                                                          {7, 17, 9},
                                                                          {12, 24, 512},
                                                                          {17, 96, 1}}) {
      cross_check({m, n, k, DType::f32, {.dtype = dtype}, {.dtype = dtype}});
      cross_check({.m = m,
                   .n = n,
                   .k = k,
                   .c = DType::bf16,
                   .a = {.dtype = dtype},
                   .b = {.dtype = dtype},
                   .accumulate = true,
                   .packed = true,
                   .biased = true});
    }
  }
}

TEST(Gemm, WholeBlocksOfRows) {  // row after row of them, in sums of one, two and more blocks of k
  for (const DType dtype : {DType::bf16, DType::e4m3}) {
    for (const std::int64_t k : {128, 256, 512, 640}) {
      for (const std::int64_t m : {192, 200}) {
        for (const DType c : {DType::f32, DType::bf16}) {
          cross_check({.m = m,
                       .n = 72,
                       .k = k,
                       .c = c,
                       .a = {.dtype = dtype},
                       .b = {.dtype = dtype, .granularity = kBlock128},
                       .packed = true});
        }
      }
    }
  }
}

// What a token gets is the same whether it comes alone, as in generation, or in a batch, as in training.
TEST(Gemm, ARowDoesNotDependOnTheOthers) {
  Workers workers(kWorkers);
  Stream stream(workers);
  constexpr std::int64_t kM = 13;
  for (const auto& [n, k] : std::vector<std::array<std::int64_t, 2>>{{33, 31}, {96, 256}, {100, 700}, {40, 2500}}) {
    for (const DType dtype : kFormats) {
      const Operand a = make({.dtype = dtype, .granularity = kRowTile128}, kM, k, 1, stream);
      const Operand b = make({.dtype = dtype, .granularity = kBlock128}, n, k, 2, stream);
      const Tensor bias = testing::normal(DType::f32, {n}, 4);
      Arena scratch(gemm_scratch_bytes(kM, n, k, kWorkers, true), Device{});
      const auto product = [&](std::int64_t first, std::int64_t rows, const PackedMatrix& packed) {
        ConstScaledView some = a.view;
        some.values = some.values.slice(0, first, rows);
        if (some.scaled()) some.scales = some.scales.slice(0, first, rows);
        Tensor c(DType::f32, {rows, n});
        gemm({.c = c, .a = some, .b = b.view, .packed_b = &packed, .bias = bias, .scratch = scratch, .stream = stream});
        return c;
      };
      for (const Variant<GemmArgs>& row : gemm_variants()) {
        SCOPED_TRACE(fmt::format("{} {} n={} k={}", row.name, name(dtype), n, k));
        pin_variant("gemm", row.name);
        PackedMatrix packed;
        pack(b.view, false, packed, stream);
        Tensor probe(DType::f32, {kM, n});
        if (testing::runs(row, GemmArgs{probe, a.view, b.view, false, false, &packed, {}, false, scratch, stream})) {
          const Tensor all = product(0, kM, packed);
          for (const auto& [first, rows] : {std::pair{0, 1}, std::pair{7, 1}, std::pair{12, 1}, std::pair{3, 5}}) {
            EXPECT_TRUE(testing::same_bits(product(first, rows, packed), all.view().slice(0, first, rows)));
          }
        }
        pin_variant("gemm", "");
      }
    }
  }
}

TEST(Gemm, StridedOperands) {  // neither dim contiguous, and rows with gaps
  Workers workers(kWorkers);
  Stream stream(workers);
  for (const DType dtype : {DType::f32, DType::bf16}) {
    const Tensor wide_a = testing::heavy_tailed(dtype, {40, 2 * 70}, 1);
    const Tensor wide_b = testing::heavy_tailed(dtype, {50, 100}, 2);
    ConstTensorView a = wide_a.view();
    a.shape = {20, 70};
    a.strides = {2 * wide_a.view().strides[0], 2};
    const ConstTensorView b = wide_b.view().slice(1, 13, 70);
    const Tensor dense_a = testing::copy(a);
    const Tensor dense_b = testing::copy(b);
    const Expected want = expected(unscaled(dense_a), unscaled(dense_b), {}, {});
    Arena scratch(gemm_scratch_bytes(20, 50, 70, kWorkers, false), Device{});
    int ran = 0;
    for (const Variant<GemmArgs>& row : gemm_variants()) {
      Fenced c(DType::f32, {20, 50}, 3);
      const GemmArgs args{.c = c, .a = unscaled(a), .b = unscaled(b), .scratch = scratch, .stream = stream};
      if (!testing::runs(row, args)) continue;
      row.run(args);
      EXPECT_TRUE(within(c, want.c, bound_of(DType::f32, 70), want.magnitude)) << row.name;
      EXPECT_TRUE(c.intact()) << row.name;
      ++ran;
    }
    EXPECT_GE(ran, 2);
  }
}

TEST(Gemm, EmptyExtents) {
  cross_check({.m = 0, .n = 5, .k = 7});
  cross_check({.m = 5, .n = 0, .k = 7});
  cross_check({.m = 5, .n = 40, .k = 0, .a = {.dtype = DType::bf16}, .b = {.dtype = DType::bf16}, .biased = true});
  cross_check({.m = 5, .n = 40, .k = 0, .accumulate = true});
}

TEST(Gemm, TransposedOperands) {
  for (const DType dtype : kFormats) {
    for (const Order a : {Order::k_contiguous, Order::rows_contiguous}) {
      for (const Order b : {Order::k_contiguous, Order::rows_contiguous}) {
        for (const bool packed : {false, true}) {
          for (const ScaleKind kind : {ScaleKind::f32, ScaleKind::power_of_two}) {
            cross_check({.m = 36,
                         .n = 70,
                         .k = 200,
                         .a = {.dtype = dtype, .kind = kind, .order = a},
                         .b = {.dtype = dtype, .kind = kind, .order = b},
                         .accumulate = true,
                         .packed = packed});
          }
        }
      }
    }
  }
}

TEST(Gemm, Granularities) {
  for (const ScaleKind kind : {ScaleKind::f32, ScaleKind::power_of_two, ScaleKind::e8m0}) {
    for (const Granularity a : {kRowTile128, kPerTensor, kRowTile32}) {
      for (const Granularity b : {kBlock128, kRowTile128, kPerTensor, kRowTile32}) {
        if ((a == kRowTile32) != (b == kRowTile32)) continue;
        for (const bool packed : {false, true}) {
          cross_check({.m = 20,
                       .n = 150,
                       .k = 290,
                       .a = {DType::e4m3, a, kind},
                       .b = {DType::e4m3, b, kind},
                       .packed = packed});
        }
      }
    }
  }
  cross_check({.m = 20, .n = 150, .k = 290, .a = {DType::e5m2, kRowTile128}, .b = {DType::e4m3, kBlock128}});
  cross_check({.m = 40,
               .n = 50,
               .k = 290,
               .a = {DType::e5m2, kRowTile128, ScaleKind::power_of_two},
               .b = {DType::e4m3, kBlock128, ScaleKind::power_of_two, Order::rows_contiguous},
               .packed = true});
}

TEST(Gemm, OneSideFolded) {  // powers of two beside plain scales: promoted
  cross_check({.m = 20,
               .n = 150,
               .k = 290,
               .a = {DType::e4m3, kRowTile128, ScaleKind::e8m0},
               .b = {DType::e4m3, kBlock128, ScaleKind::f32},
               .packed = true});
}

TEST(Gemm, LongSums) {  // more of k than one chunk, more panels than one group
  for (const DType dtype : {DType::bf16, DType::e4m3}) {
    cross_check({.m = 9,
                 .n = 530,
                 .k = 2200,
                 .c = DType::bf16,
                 .a = {.dtype = dtype},
                 .b = {.dtype = dtype, .granularity = kBlock128},
                 .packed = true});
  }
  cross_check({.m = 20, .n = 40, .k = 2300, .accumulate = true});
}

TEST(Gemm, RealShape) {
  cross_check({.m = 256,
               .n = 256,
               .k = 384,
               .c = DType::bf16,
               .a = {DType::e4m3, kRowTile128},
               .b = {DType::e4m3, kBlock128},
               .packed = true});
}

TEST(Gemm, ScalesOutsideTheFoldingRange) {
  Workers workers(kWorkers);
  Stream stream(workers);
  Operand a = make({DType::e4m3, kRowTile128, ScaleKind::power_of_two}, 20, 200, 1, stream);
  const Operand b = make({DType::e4m3, kBlock128, ScaleKind::power_of_two}, 40, 200, 2, stream);
  a.scales.as<float>()[3] = 0x1p-70f;
  a.scales.as<float>()[4] = 0x1p60f;
  const Expected want = expected(a.view, b.view, {}, {});
  Arena scratch(gemm_scratch_bytes(20, 40, 200, kWorkers, false), Device{});
  for (const Variant<GemmArgs>& row : gemm_variants()) {
    Tensor c(DType::f32, {20, 40});
    const GemmArgs args{
        .c = c, .a = a.view, .b = b.view, .power_of_two_scales = true, .scratch = scratch, .stream = stream};
    if (!testing::runs(row, args)) continue;
    row.run(args);
    EXPECT_TRUE(within(c, want.c, bound_of(DType::f32, 200), want.magnitude)) << row.name;
  }
}

TEST(Gemm, EveryCodeDecodesExactly) {  // one code a row, or a column, against one: c is the code's value
  Workers workers(kWorkers);
  Stream stream(workers);
  Arena scratch(gemm_scratch_bytes(256, 256, 1, kWorkers, false), Device{});
  for (const DType dtype : {DType::e4m3, DType::e5m2}) {
    for (const float factor : {1.0f, 0.5f, 4.0f, 0x1p-20f, 0x1p33f}) {
      Tensor codes(dtype, {256, 1});
      for (int i = 0; i < 256; ++i) codes.as<std::uint8_t>()[i] = static_cast<std::uint8_t>(i);
      Tensor one(dtype, {1, 1});
      testing::fill_constant(one, 1.0);
      Tensor scale_a(DType::f32, {256, 1});
      testing::fill_constant(scale_a, factor);
      Tensor scale_b(DType::f32, {1, 1});
      testing::fill_constant(scale_b, 1.0);
      const ConstScaledView all{codes, scale_a, kRowTile128};
      const ConstScaledView unit{one, scale_b, kRowTile128};
      for (const Variant<GemmArgs>& row : gemm_variants()) {
        for (const bool left : {true, false}) {
          Tensor c(DType::f32, left ? Shape{256, 1} : Shape{1, 256});
          const GemmArgs args{.c = c,
                              .a = left ? all : unit,
                              .b = left ? unit : all,
                              .power_of_two_scales = true,
                              .scratch = scratch,
                              .stream = stream};
          if (!testing::runs(row, args)) continue;
          row.run(args);
          for (std::int64_t i = 0; i < 256; ++i) {
            const double want = testing::value_at(codes.view(), i) * double{factor};
            const double got = double{c.as<float>()[i]};
            EXPECT_TRUE(want == got || (std::isnan(want) && std::isnan(got)))
                << row.name << " " << i << ": " << got << " for " << want;
          }
        }
      }
    }
  }
}

// Half of c is computed and mirrored: the bits of computing all of it.
TEST(Gemm, ASymmetricProduct) {
  for (const int workers : {1, 3}) {
    Workers pool(workers);
    Stream stream(pool);
    for (const std::int64_t m : {1, 31, 48, 50, 97, 200, 333}) {
      for (const DType dtype : {DType::f32, DType::bf16}) {
        for (const Order order : {Order::k_contiguous, Order::rows_contiguous}) {
          SCOPED_TRACE(fmt::format("{} rows of {}, order {}, {} workers", m, name(dtype), int(order), workers));
          const Operand x = make({.dtype = dtype, .order = order}, m, 130, 5, stream);
          Arena scratch(gemm_scratch_bytes(m, m, 130, workers, false), Device{});
          Fenced half(dtype, {m, m}, 32);
          Tensor all(dtype, {m, m});
          GemmArgs args{.c = all, .a = x.view, .b = x.view, .bias = {}, .scratch = scratch, .stream = stream};
          gemm(args);
          args.c = half;
          args.symmetric = true;
          gemm(args);
          EXPECT_TRUE(half.intact());
          EXPECT_TRUE(testing::same_bits(half, all));
        }
      }
    }
  }
}

TEST(Gemm, DoubleRunsOnTheReference) {
  Workers workers(1);
  Stream stream(workers);
  const Operand a = make({DType::f64}, 5, 9, 1, stream);
  const Operand b = make({DType::f64, {}, {}, Order::rows_contiguous}, 7, 9, 2, stream);
  Tensor c(DType::f64, {5, 7});
  Arena scratch(0, Device{});
  gemm({.c = c, .a = a.view, .b = b.view, .scratch = scratch, .stream = stream});
  const Expected want = expected(a.view, b.view, {}, {});
  EXPECT_TRUE(within(c, want.c, testing::rounding_bound(DType::f64, DType::f64, 1, 9), want.magnitude));
}

TEST(Gemm, ABadResultIsSeen) {
  Workers workers(kWorkers);
  Stream stream(workers);
  constexpr std::int64_t kM = 64, kN = 96, kK = 300;
  const Operand a = make({DType::e4m3, kRowTile128}, kM, kK, 1, stream);
  const Operand b = make({DType::e4m3, kBlock128}, kN, kK, 2, stream);
  const Expected want = expected(a.view, b.view, {}, {});
  Arena scratch(gemm_scratch_bytes(kM, kN, kK, kWorkers, false), Device{});
  const auto check = [&](const ConstScaledView& x, const std::function<void(Tensor&)>& damage) {
    Tensor c(DType::f32, {kM, kN});
    gemm({.c = c, .a = x, .b = b.view, .scratch = scratch, .stream = stream});
    damage(c);
    return within(c, want.c, bound_of(DType::f32, kK), want.magnitude);
  };
  const auto nothing = [](Tensor&) {};
  EXPECT_TRUE(check(a.view, nothing));
  Tensor scales = testing::copy(a.view.scales);
  scales.as<float>()[7] *= 1.02f;  // one tile of one row
  EXPECT_FALSE(check({a.view.values, scales, kRowTile128}, nothing));
  Tensor cut = testing::copy(a.view.values);
  for (std::int64_t i = 0; i < kM; ++i) {
    for (std::int64_t k = 288; k < kK; ++k) cut.as<std::uint8_t>()[i * kK + k] = 0;
  }
  EXPECT_FALSE(check({cut, a.view.scales, kRowTile128}, nothing));  // the tail of k is dropped
  EXPECT_FALSE(
      check(a.view, [](Tensor& c) { std::swap_ranges(c.as<float>(), c.as<float>() + kN, c.as<float>() + kN); }));
  EXPECT_FALSE(check(a.view, [](Tensor& c) { c.as<float>()[100] *= 1.0002f; }));
}

TEST(Gemm, MisfitsAreNamed) {
  Workers workers(1);
  Stream stream(workers);
  Arena scratch(1 << 16, Device{});
  Tensor a(DType::f32, {2, 3});
  Tensor b(DType::f32, {4, 5});
  Tensor c(DType::f32, {2, 4});
  EXPECT_THROW(gemm({.c = c, .a = unscaled(a), .b = unscaled(b), .scratch = scratch, .stream = stream}), Error);
  Tensor bytes(DType::e4m3, {2, 3});
  EXPECT_THROW(gemm({.c = c, .a = unscaled(bytes), .b = unscaled(a), .scratch = scratch, .stream = stream}), Error);
  Tensor other(DType::f32, {2, 3});
  Tensor square(DType::f32, {2, 2});
  GemmArgs args{.c = square, .a = unscaled(a), .b = unscaled(other), .bias = {}, .scratch = scratch, .stream = stream};
  args.symmetric = true;
  EXPECT_THROW(gemm(args), Error);
}

}  // namespace
}  // namespace shoestring
