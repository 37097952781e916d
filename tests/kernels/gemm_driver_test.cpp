// What all machines promise together: one order of sums, one layout of panels, no trace of workers and neighbours.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/base/workers.h"
#include "kernels/gemm.h"
#include "tests/kernels/gemm_operands.h"
#include "tests/support/row_coverage.h"

namespace shoestring {
namespace {

using testing::Expected;
using testing::expected;
using testing::make;
using testing::Operand;
using testing::Order;
using testing::within;

constexpr int kWorkers = 2;
const std::vector<DType> kFormats{DType::f32, DType::bf16, DType::e4m3};

TEST(GemmDriver, TilesAndPortableCodeAgree) {  // both sum exact products in FP32: only the order of k differs
  Workers workers(kWorkers);
  Stream stream(workers);
  for (const DType dtype : {DType::bf16, DType::e4m3}) {
    const Operand a = make({.dtype = dtype}, 65, 384, 1, stream);
    const Operand b = make({.dtype = dtype, .granularity = kBlock128}, 130, 384, 2, stream);
    const Expected want = expected(a.view, b.view, {}, {});
    Arena scratch(gemm_scratch_bytes(65, 130, 384, kWorkers, false), Device{});
    std::vector<Tensor> results;
    for (const Variant<GemmArgs>& row : gemm_variants()) {
      Tensor c(DType::f32, {65, 130});
      const GemmArgs args{.c = c, .a = a.view, .b = b.view, .scratch = scratch, .stream = stream};
      if (row.name == "reference" || !testing::runs(row, args)) continue;
      row.run(args);
      results.push_back(std::move(c));
    }
    for (const Tensor& c : results) {
      EXPECT_TRUE(within(c, results.back(), {0, 2 * testing::sum_error(384, DType::f32)}, want.magnitude));
    }
  }
}

/// c as the FMA machines promise it: chains of fma over `depth` of k, each promoted, then added up in their order.
Tensor in_chains(const ConstScaledView& a, const ConstScaledView& b, std::int64_t depth) {
  const std::int64_t m = a.values.shape[0];
  const std::int64_t n = b.values.shape[0];
  const std::int64_t k = a.values.shape[1];
  Tensor c(DType::f32, {m, n});
  for (std::int64_t i = 0; i < m; ++i) {
    for (std::int64_t j = 0; j < n; ++j) {
      float total = 0;
      for (std::int64_t begin = 0; begin < k; begin += depth) {
        float sum = 0;
        for (std::int64_t x = begin; x < std::min(begin + depth, k); ++x) {
          sum = std::fma(static_cast<float>(testing::value_at(a.values, i * k + x)),
                         static_cast<float>(testing::value_at(b.values, j * k + x)), sum);
        }
        if (a.scaled()) {
          sum *=
              static_cast<float>(testing::scale_at(a, i, begin)) * static_cast<float>(testing::scale_at(b, j, begin));
        }
        total = begin == 0 ? sum : total + sum;
      }
      c.as<float>()[i * n + j] = total;
    }
  }
  return c;
}

bool sums_by_fma(std::string_view row) { return row == "avx2" || row == "avx2_bf16" || row == "avx512"; }

TEST(GemmDriver, FmaMachinesSumInOneOrder) {  // so that AVX2 and AVX-512 give the same bits
  Workers workers(kWorkers);
  Stream stream(workers);
  for (const DType dtype : kFormats) {
    const Operand a = make({.dtype = dtype, .order = Order::rows_contiguous}, 27, 700, 1, stream);
    const Operand b = make({.dtype = dtype, .granularity = kBlock128}, 145, 700, 2, stream);
    const std::int64_t depth = size_bytes(dtype) == 1 ? 128 : 256;
    const Tensor want = in_chains(a.view, b.view, depth);
    Arena scratch(gemm_scratch_bytes(27, 145, 700, kWorkers, false), Device{});
    for (const Variant<GemmArgs>& row : gemm_variants()) {
      if (!sums_by_fma(row.name)) continue;
      Tensor c(DType::f32, {27, 145});
      const GemmArgs args{.c = c, .a = a.view, .b = b.view, .scratch = scratch, .stream = stream};
      if (!testing::runs(row, args)) continue;
      row.run(args);
      EXPECT_TRUE(testing::same_bits(c, want)) << row.name << " " << name(dtype);
      EXPECT_FALSE(testing::same_bits(c, in_chains(a.view, b.view, 64))) << "another order shows";
    }
  }
}

TEST(GemmDriver, PanelsHoldEveryBfloat16) {
  constexpr std::int64_t kCodes = 1 << 16;
  Workers workers(kWorkers);
  Stream stream(workers);
  Tensor one(DType::bf16, {1, 1});
  one.as<BFloat16>()[0] = BFloat16(1.0f);
  Tensor codes(DType::bf16, {kCodes, 1});
  for (std::int64_t i = 0; i < kCodes; ++i) codes.as<BFloat16>()[i].bits = static_cast<std::uint16_t>(i);
  Arena scratch(gemm_scratch_bytes(1, kCodes, 1, kWorkers, false), Device{});
  for (const Variant<GemmArgs>& row : gemm_variants()) {
    if (!sums_by_fma(row.name)) continue;
    Tensor c(DType::f32, {1, kCodes});
    const GemmArgs args{.c = c, .a = unscaled(one), .b = unscaled(codes), .scratch = scratch, .stream = stream};
    if (!testing::runs(row, args)) continue;
    row.run(args);
    for (std::int64_t i = 0; i < kCodes; ++i) {
      const float want{codes.as<BFloat16>()[i]};
      const float found = c.as<float>()[i];
      ASSERT_TRUE(std::isnan(want) ? std::isnan(found) : found == want) << row.name << " code " << i << ": " << found;
    }
  }
}

TEST(GemmDriver,
     OneLayoutOneMeaning) {  // what one machine packed as f32 another may multiply: panels are the same for all
  Workers workers(kWorkers);
  Stream stream(workers);
  Arena scratch(gemm_scratch_bytes(19, 50, 300, kWorkers, true), Device{});
  for (const DType dtype : kFormats) {
    const Operand a = make({.dtype = dtype}, 19, 300, 1, stream);
    const Operand b = make({.dtype = dtype, .granularity = kBlock128}, 50, 300, 2, stream);
    int pairs = 0;
    for (const Variant<GemmArgs>& row : gemm_variants()) {
      Tensor own(DType::f32, {19, 50});
      const GemmArgs args{.c = own, .a = a.view, .b = b.view, .scratch = scratch, .stream = stream};
      if (row.name == "reference" || !testing::runs(row, args)) continue;
      row.run(args);
      for (const Variant<GemmArgs>& packer : gemm_variants()) {
        PackedMatrix packed;
        pin_variant("gemm", packer.name);
        pack(b.view, false, packed, stream);
        pin_variant("gemm", "");
        Tensor c(DType::f32, {19, 50});
        const GemmArgs with_packed{
            .c = c, .a = a.view, .b = b.view, .packed_b = &packed, .scratch = scratch, .stream = stream};
        if (!row.refuses(with_packed).empty()) continue;
        row.run(with_packed);
        EXPECT_TRUE(testing::same_bits(c, own)) << name(dtype) << " packed by " << packer.name << " for " << row.name;
        ++pairs;
      }
    }
    EXPECT_GE(pairs, 2);
  }
}

TEST(GemmDriver, LargeOutputsHaveTheSameBits) {  // c of 4 MiB goes around the cache, its parts do not
  constexpr std::int64_t kM = 1024, kN = 1024, kK = 5, kPart = 128;
  Workers workers(kWorkers);
  Stream stream(workers);
  const Operand a = make({.dtype = DType::f32}, kM, kK, 1, stream);
  const Operand b = make({.dtype = DType::f32}, kN, kK, 2, stream);
  Arena scratch(gemm_scratch_bytes(kM, kN, kK, kWorkers, false), Device{});
  for (const Variant<GemmArgs>& row : gemm_variants()) {
    Tensor whole(DType::f32, {kM, kN});
    Tensor part(DType::f32, {kPart, kN});
    const GemmArgs args{.c = whole, .a = a.view, .b = b.view, .scratch = scratch, .stream = stream};
    if (row.name == "reference" || !testing::runs(row, args)) continue;
    row.run(args);
    for (std::int64_t begin = 0; begin < kM; begin += kPart) {
      row.run({.c = part,
               .a = unscaled(a.view.values.slice(0, begin, kPart)),
               .b = b.view,
               .scratch = scratch,
               .stream = stream});
      EXPECT_TRUE(testing::same_bits(part, ConstTensorView(whole).slice(0, begin, kPart))) << row.name;
    }
  }
}

TEST(GemmDriver, NeitherWorkersNorOtherRowsShow) {
  for (const DType dtype : kFormats) {
    for (const ScaleKind kind : {ScaleKind::f32, ScaleKind::power_of_two}) {
      Workers one(1);
      Workers three(3);
      Stream alone(one);
      Stream shared(three);
      const Operand a = make({.dtype = dtype, .kind = kind}, 150, 700, 1, alone);
      const Operand b = make({.dtype = dtype, .granularity = kBlock128, .kind = kind}, 70, 700, 2, alone);
      Arena scratch(gemm_scratch_bytes(150, 70, 700, 3, false), Device{});
      Tensor c1(DType::f32, {150, 70});
      Tensor c3(DType::f32, {150, 70});
      Tensor row(DType::f32, {1, 70});
      const bool two = kind != ScaleKind::f32;
      gemm({.c = c1, .a = a.view, .b = b.view, .power_of_two_scales = two, .scratch = scratch, .stream = alone});
      gemm({.c = c3, .a = a.view, .b = b.view, .power_of_two_scales = two, .scratch = scratch, .stream = shared});
      EXPECT_TRUE(testing::same_bits(c1, c3));
      ConstScaledView last = a.view;
      last.values = last.values.slice(0, 149, 1);
      if (last.scaled()) last.scales = last.scales.slice(0, 149, 1);
      gemm({.c = row, .a = last, .b = b.view, .power_of_two_scales = two, .scratch = scratch, .stream = shared});
      EXPECT_TRUE(testing::same_bits(row, ConstTensorView(c1).slice(0, 149, 1)));
    }
  }
}

}  // namespace
}  // namespace shoestring
