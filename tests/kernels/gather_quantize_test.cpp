#include "kernels/gather_quantize.h"

#include <gtest/gtest.h>

#include <tuple>
#include <vector>

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

/// A routing of `tokens` tokens: expert 1 is empty, some slots go nowhere.
struct Routing {
  Tensor indices;
  PermutationStorage storage;
  std::vector<std::int64_t> segments;

  Routing(std::int64_t tokens, std::int64_t k, std::int64_t experts, Stream& stream)
      : indices(DType::i32, {tokens, k}), storage(tokens, k, experts) {
    testing::fill_integers(indices, 7, -1, experts);
    for (std::int64_t slot = 0; slot < tokens * k; ++slot) {
      if (indices.as<std::int32_t>()[slot] == 1) indices.as<std::int32_t>()[slot] = 0;
    }
    plan_permutation(storage.view(), indices, stream);
    const auto* offsets = storage.view().offsets.as<std::int64_t>();
    segments.assign(offsets, offsets + experts + 1);
  }
};

TEST(GatherQuantize, EqualsTheGatherAndThenQuantise) {
  Workers workers(2);
  Stream stream(workers);
  for (const auto& [tokens, k, experts, hidden, format, kind] :
       {std::tuple{1, 1, 2, 128, DType::bf16, ScaleKind::f32}, std::tuple{90, 3, 5, 136, DType::f32, ScaleKind::f32},
        std::tuple{300, 2, 4, 256, DType::bf16, ScaleKind::power_of_two},
        std::tuple{64, 4, 64, 33, DType::bf16, ScaleKind::f32}}) {
    Routing routing(tokens, k, experts, stream);
    const Permutation plan = routing.storage.view();
    const Tensor wide = heavy_tailed(format, {tokens, hidden + 3}, 2);
    const ConstTensorView x = wide.view().slice(1, 3, hidden);
    const Shape shape{routing.segments.back(), hidden};
    Casts apart(shape, routing.segments);
    Fenced xp(format, shape);
    gather_rows({.xp = xp, .x = x, .plan = plan, .stream = stream});
    apart.quantize_from(xp, routing.segments, kind, stream);
    Arena scratch(gather_quantize_scratch_bytes(hidden), {});
    for (const Variant<GatherQuantizeArgs>& row : gather_quantize_variants()) {
      Casts fused(shape, routing.segments);
      const GatherQuantizeArgs args{.row_tiles = fused.row_tiles(),
                                    .column_tiles = fused.column_tiles(),
                                    .x = x,
                                    .plan = plan,
                                    .scale_kind = kind,
                                    .segments = routing.segments,
                                    .counts = &fused.counts,
                                    .scratch = scratch,
                                    .stream = stream};
      if (!testing::runs(row, args)) continue;
      row.run(args);
      testing::expect_same_casts(fused, apart);
      EXPECT_EQ(scratch.used_bytes(), 0);
    }
  }
}

// Segments matter, and rows past the plan's last are zeros.
TEST(GatherQuantize, TallTilesRestartAtEachExpertAndTheRestIsZero) {
  Workers workers(1);
  Stream stream(workers);
  Routing routing(100, 2, 3, stream);
  const Tensor x = heavy_tailed(DType::bf16, {100, 128}, 2);
  const std::int64_t rows = 200;  // of each slot one, and some slots go nowhere
  ASSERT_LT(routing.segments.back(), rows);
  std::vector<std::int64_t> whole{0, rows}, experts = routing.segments;
  experts.push_back(rows);
  Arena scratch(gather_quantize_scratch_bytes(128), {});
  const auto run = [&](const std::vector<std::int64_t>& segments) {
    Casts casts({rows, 128}, segments);
    gather_quantize({.row_tiles = casts.row_tiles(),
                     .column_tiles = casts.column_tiles(),
                     .x = x,
                     .plan = routing.storage.view(),
                     .segments = segments,
                     .scratch = scratch,
                     .stream = stream});
    return casts;
  };
  const Casts by_expert = run(experts), as_one = run(whole);
  EXPECT_TRUE(same_bits(by_expert.row_values, as_one.row_values));
  EXPECT_FALSE(same_bits(by_expert.column_values, as_one.column_values));
  for (std::int64_t row = routing.segments.back(); row < rows; ++row) {
    EXPECT_EQ(by_expert.row_values.view().as<std::uint8_t>()[row * 128 + 5], 0);
    EXPECT_EQ(by_expert.row_scales.view().as<float>()[row], 1.0f);
  }
}

TEST(GatherQuantize, BrokenContracts) {
  Workers workers(1);
  Stream stream(workers);
  Routing routing(4, 2, 3, stream);
  const Tensor x(DType::bf16, {4, 128}), other(DType::bf16, {3, 128});
  Tensor codes(DType::e4m3, {9, 128}), scales(DType::f32, {9, 1});
  Arena scratch(gather_quantize_scratch_bytes(128), {});
  const auto run = [&](ConstTensorView tokens, std::int64_t rows) {
    gather_quantize({.row_tiles = {codes.view().slice(0, 0, rows), scales.view().slice(0, 0, rows), kRowTile128},
                     .x = tokens,
                     .plan = routing.storage.view(),
                     .scratch = scratch,
                     .stream = stream});
  };
  EXPECT_NO_THROW(run(x, 8));
  EXPECT_THROW(run(x, 9), Error);      // more rows than slots
  EXPECT_THROW(run(other, 8), Error);  // 8 slots of 3 tokens
}

}  // namespace
}  // namespace shoestring
