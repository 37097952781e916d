// Every variant against quantize followed by gemm or grouped_gemm: bit for bit.
#include "kernels/quantized_gemm.h"

#include <fmt/core.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "kernels/base/cpu.h"
#include "kernels/base/workers.h"
#include "kernels/grouped_gemm.h"
#include "tests/support/compare.h"
#include "tests/support/fill.h"
#include "tests/support/row_coverage.h"

namespace shoestring {
namespace {

using Offsets = std::vector<std::int64_t>;

enum class Content { ordinary, special, tiny };

struct Case {
  std::int64_t m, n, k;
  DType x = DType::bf16;
  DType values = DType::e4m3;
  ScaleKind kind = ScaleKind::f32;
  DType c = DType::bf16;
  Content content = Content::ordinary;
  Granularity row_tile = kRowTile128;
  bool transposed = false;
  bool accumulate = false;
  bool packed = true;
  bool columns = false;  ///< x in column tiles too
  Offsets offsets{};
};

DType scale_dtype(const Case& t) { return t.kind == ScaleKind::e8m0 ? DType::e8m0 : DType::f32; }

void put(Tensor& x, std::int64_t at, float value) {
  if (x.view().dtype == DType::f32) {
    x.as<float>()[at] = value;
  } else {
    x.as<BFloat16>()[at] = BFloat16(value);
  }
}

/// Ties, both zeros, tiles of zeros, numbers under the grid's least, and as asked NaN, infinities, tiny tiles.
Tensor make_x(const Case& t) {
  const Shape shape{t.m, t.k};
  Tensor x(t.x, shape);
  testing::assign(x, testing::heavy_tailed(DType::f32, shape, 5));
  for (std::int64_t i = 0; i < shape.elements(); ++i) {
    const std::int64_t tile = i / 128;
    if (tile % 7 == 3) put(x, i, i % 2 == 0 ? 0.0f : -0.0f);
    if (tile % 7 == 5) put(x, i, std::ldexp(static_cast<float>(i * 37 % 1024) - 512.0f, -static_cast<int>(i % 19)));
    if (t.content == Content::tiny && tile % 5 == 1) put(x, i, std::ldexp(1.0f + static_cast<float>(i % 128), -120));
  }
  if (t.content != Content::special) return x;
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  put(x, 130 % shape.elements(), kInfinity);
  put(x, 5, -kInfinity);
  put(x, shape.elements() - 1, -std::numeric_limits<float>::quiet_NaN());
  return x;
}

struct Weights {
  Tensor values;
  Tensor scales;
  ConstScaledView view;
  PackedMatrix packed;
};

Weights make_weights(const Case& t, Stream& stream) {
  const std::int64_t experts = std::max<std::int64_t>(1, static_cast<std::int64_t>(t.offsets.size()) - 1);
  const std::int64_t rows = t.transposed ? t.k : t.n;
  const Shape shape{experts * rows, t.transposed ? t.n : t.k};
  const Granularity tile = t.row_tile == kRowTile32 ? kRowTile32 : kBlock128;
  Offsets segments;
  for (std::int64_t e = 0; e <= experts; ++e) segments.push_back(e * rows);
  Weights w;
  w.values = Tensor(DType::e4m3, shape);
  w.scales = Tensor(scale_dtype(t), tile_scales_shape(shape[0], shape[1], tile, segments));
  const ScaledView to{w.values, w.scales, tile};
  const Tensor plain = testing::normal(DType::f32, shape, 6);
  quantize({.x = plain, .row_tiles = to, .scale_kind = t.kind, .segments = segments, .stream = stream});
  w.view = to;
  const bool two = t.kind != ScaleKind::f32;
  if (!t.offsets.empty()) {
    pack_experts(w.view, experts, t.transposed, two, w.packed, stream);
  } else {
    pack(t.transposed ? w.view.transposed() : w.view, two, w.packed, stream);
  }
  return w;
}

/// What a run leaves behind.
struct Outcome {
  Tensor c;
  Tensor column_values;
  Tensor column_scales;
  QuantizeCounts counts;
};

Outcome start(const Case& t) {
  Outcome out;
  out.c = testing::normal(t.c, {t.m, t.n}, 7);
  if (!t.columns) return out;
  out.column_values = Tensor(t.values, {t.m, t.k});
  out.column_scales = Tensor(scale_dtype(t), tile_scales_shape(t.m, t.k, kColumnTile128, t.offsets));
  return out;
}

ScaledView columns_of(const Outcome& out) {
  if (out.column_values.empty()) return {};
  return {const_cast<Tensor&>(out.column_values).view(), const_cast<Tensor&>(out.column_scales).view(), kColumnTile128};
}

Outcome in_two_steps(const Case& t, const Tensor& x, const Weights& w, Stream& stream) {
  Outcome out = start(t);
  Tensor values(t.values, {t.m, t.k});
  Tensor scales(scale_dtype(t), scales_shape(t.m, t.k, t.row_tile));
  const ScaledView codes{values, scales, t.row_tile};
  quantize({.x = x,
            .row_tiles = codes,
            .column_tiles = columns_of(out),
            .scale_kind = t.kind,
            .segments = t.offsets,
            .counts = &out.counts,
            .stream = stream});
  const PackedMatrix* packed = t.packed ? &w.packed : nullptr;
  const bool two = t.kind != ScaleKind::f32;
  Arena scratch(quantized_gemm_scratch_bytes(t.m, t.n, t.k, static_cast<std::int64_t>(t.offsets.size()),
                                             stream.workers().count(), t.packed),
                Device{});
  if (t.offsets.empty()) {
    gemm({.c = out.c,
          .a = codes,
          .b = t.transposed ? w.view.transposed() : w.view,
          .accumulate = t.accumulate,
          .power_of_two_scales = two,
          .packed_b = packed,
          .scratch = scratch,
          .stream = stream});
  } else {
    grouped_gemm({.c = out.c,
                  .a = codes,
                  .b = w.view,
                  .b_transposed = t.transposed,
                  .offsets = t.offsets,
                  .accumulate = t.accumulate,
                  .power_of_two_scales = two,
                  .packed_b = packed,
                  .scratch = scratch,
                  .stream = stream});
  }
  return out;
}

QuantizedGemmArgs args_of(const Case& t, const Tensor& x, const Weights& w, Outcome& out, Arena& scratch,
                          Stream& stream) {
  return {.c = out.c,
          .x = x,
          .values = t.values,
          .row_tile = t.row_tile,
          .scale_kind = t.kind,
          .column_tiles = columns_of(out),
          .b = w.view,
          .b_transposed = t.transposed,
          .offsets = t.offsets,
          .accumulate = t.accumulate,
          .packed_b = t.packed ? &w.packed : nullptr,
          .counts = &out.counts,
          .scratch = scratch,
          .stream = stream};
}

bool same_bytes(const Tensor& a, const Tensor& b) {
  return a.empty() || std::memcmp(a.view().data, b.view().data, static_cast<std::size_t>(a.view().bytes())) == 0;
}

void expect_same(const Outcome& got, const Outcome& want) {
  EXPECT_TRUE(same_bytes(got.c, want.c)) << "c";
  EXPECT_TRUE(same_bytes(got.column_values, want.column_values)) << "column values";
  EXPECT_TRUE(same_bytes(got.column_scales, want.column_scales)) << "column scales";
  EXPECT_EQ(got.counts.elements, want.counts.elements);
  EXPECT_EQ(got.counts.saturated, want.counts.saturated);
  EXPECT_EQ(got.counts.underflowed, want.counts.underflowed);
  EXPECT_EQ(got.counts.non_finite, want.counts.non_finite);
  EXPECT_EQ(got.counts.amax, want.counts.amax);
}

/// Pins gemm, and with it which machine the fused rows may use.
class Pinned {
 public:
  explicit Pinned(std::string_view variant) { pin_variant("gemm", variant); }
  ~Pinned() { pin_variant("gemm", ""); }
  Pinned(const Pinned&) = delete;
  Pinned& operator=(const Pinned&) = delete;
};

/// Runs `t` on every variant that takes it, with one worker and with three; returns how many variants did.
int cross_check_once(const Case& t) {
  SCOPED_TRACE(fmt::format("m={} n={} k={} {}->{} kind {} content {} experts {}", t.m, t.n, t.k, name(t.x),
                           name(t.values), static_cast<int>(t.kind), static_cast<int>(t.content), t.offsets.size()));
  int ran = 0;
  for (const int count : {1, 3}) {
    Workers workers(count);
    Stream stream(workers);
    const Tensor x = make_x(t);
    const Weights w = make_weights(t, stream);
    const Outcome want = in_two_steps(t, x, w, stream);
    Arena scratch(
        quantized_gemm_scratch_bytes(t.m, t.n, t.k, static_cast<std::int64_t>(t.offsets.size()), count, t.packed),
        Device{});
    ran = 0;
    for (const auto& variant : quantized_gemm_variants()) {
      SCOPED_TRACE(variant.name);
      Outcome got = start(t);
      const QuantizedGemmArgs args = args_of(t, x, w, got, scratch, stream);
      if (!testing::runs(variant, args)) continue;
      variant.run(args);
      expect_same(got, want);
      ++ran;
    }
  }
  return ran;
}

/// The same, and once more on the AVX2 machine where gemm would choose another: each must find as many variants.
int cross_check(const Case& t) {
  const int ran = cross_check_once(t);
  if (!cpu_features().avx512) return ran;
  const Pinned avx2("avx2");
  const int again = cross_check_once(t);
  if (cpu_features().amx_bf16) {
    EXPECT_EQ(again, ran);
  }
  return again;
}

/// The fused row of the machine that gemm runs on, and two ops. AVX-512 alone has no fused row, and is pinned to AVX2.
int all_variants() { return cpu_features().avx2 ? 2 : 1; }

TEST(QuantizedGemm, EqualsQuantizeThenGemm) {
  for (const DType x : {DType::bf16, DType::f32}) {
    for (const DType values : {DType::e4m3, DType::e5m2}) {
      for (const ScaleKind kind : {ScaleKind::f32, ScaleKind::power_of_two, ScaleKind::e8m0}) {
        for (const Content content : {Content::ordinary, Content::special, Content::tiny}) {
          EXPECT_EQ(
              cross_check({.m = 45, .n = 40, .k = 384, .x = x, .values = values, .kind = kind, .content = content}),
              all_variants());
        }
      }
    }
  }
}

TEST(QuantizedGemm, ShapesAndOutputs) {
  for (const ScaleKind kind : {ScaleKind::f32, ScaleKind::power_of_two}) {
    EXPECT_EQ(cross_check({.m = 1, .n = 1, .k = 128, .kind = kind}), all_variants());
    EXPECT_EQ(cross_check({.m = 300, .n = 33, .k = 256, .kind = kind, .c = DType::f32}), all_variants());
    EXPECT_EQ(cross_check({.m = 33, .n = 64, .k = 2432, .kind = kind}), all_variants());
    EXPECT_EQ(cross_check({.m = 77, .n = 64, .k = 288, .kind = kind}), all_variants());
    EXPECT_EQ(cross_check({.m = 33, .n = 40, .k = 96, .x = DType::f32, .kind = kind, .content = Content::special}),
              all_variants());
    EXPECT_EQ(cross_check({.m = 130, .n = 128, .k = 256, .kind = kind, .transposed = true, .columns = true}),
              all_variants());
    EXPECT_EQ(cross_check({.m = 40, .n = 96, .k = 128, .kind = kind, .packed = false}), all_variants());
  }
  EXPECT_EQ(cross_check({.m = 40, .n = 96, .k = 256, .c = DType::f32, .accumulate = true}), all_variants());
}

TEST(QuantizedGemm, EqualsQuantizeThenGroupedGemm) {
  const Offsets uneven{0, 0, 1, 131, 131, 164, 292, 292};
  for (const bool transposed : {false, true}) {
    for (const ScaleKind kind : {ScaleKind::f32, ScaleKind::power_of_two}) {
      EXPECT_EQ(cross_check({.m = 292,
                             .n = 128,
                             .k = 256,
                             .kind = kind,
                             .transposed = transposed,
                             .columns = true,
                             .offsets = uneven}),
                all_variants());
    }
  }
}

TEST(QuantizedGemm, NoRows) {
  const Case t{.m = 0, .n = 32, .k = 128};
  Workers workers(1);
  Stream stream(workers);
  const Tensor x = make_x(t);
  const Weights w = make_weights(t, stream);
  Outcome got = start(t);
  Arena scratch(quantized_gemm_scratch_bytes(t.m, t.n, t.k, 0, 1, true), Device{});
  quantized_gemm(args_of(t, x, w, got, scratch, stream));
  EXPECT_EQ(got.counts.elements, 0);
}

TEST(QuantizedGemm, LeavesTheRestToTwoOps) {
  EXPECT_EQ(cross_check({.m = 40, .n = 32, .k = 200}), 1);
  EXPECT_EQ(cross_check({.m = 40, .n = 32, .k = 256, .kind = ScaleKind::e8m0, .row_tile = kRowTile32}), 1);
  EXPECT_EQ(cross_check({.m = 40, .n = 32, .k = 256, .kind = ScaleKind::power_of_two, .accumulate = true}), 1);
}

/// The comparison of bytes sees one element of x that moved.
TEST(QuantizedGemm, OneElementShows) {
  const Case t{.m = 40, .n = 32, .k = 256, .c = DType::f32};
  Workers workers(1);
  Stream stream(workers);
  Tensor x = make_x(t);
  const Weights w = make_weights(t, stream);
  const Outcome want = in_two_steps(t, x, w, stream);
  put(x, 7, 1.25f * float{x.as<BFloat16>()[7]} + 1.0f);
  Arena scratch(quantized_gemm_scratch_bytes(t.m, t.n, t.k, 0, 1, true), Device{});
  for (const auto& variant : quantized_gemm_variants()) {
    Outcome got = start(t);
    const QuantizedGemmArgs args = args_of(t, x, w, got, scratch, stream);
    if (!testing::runs(variant, args)) continue;
    variant.run(args);
    EXPECT_FALSE(same_bytes(got.c, want.c)) << variant.name;
  }
}

}  // namespace
}  // namespace shoestring
