#include "kernels/latent_key.h"

#include <fmt/core.h>
#include <gtest/gtest.h>

#include "kernels/base/workers.h"
#include "tests/support/compare.h"
#include "tests/support/fill.h"
#include "tests/support/gradient.h"
#include "tests/support/row_coverage.h"

namespace shoestring::testing {
namespace {

constexpr std::int64_t kHeads = 3;

/// Elements of a head's own part, and of the part that heads share.
struct Parts {
  std::int64_t own, shared;
};
constexpr Parts kParts[] = {{5, 4}, {33, 17}, {64, 32}};  // less than a vector, more than whole ones, whole ones

class LatentKey : public ::testing::TestWithParam<std::int64_t> {};
INSTANTIATE_TEST_SUITE_P(Tokens, LatentKey, ::testing::Values(0, 1, 31, 33));

TEST_P(LatentKey, Joins) {
  const std::int64_t tokens = GetParam();
  Workers workers(2);
  Stream stream(workers);
  for (const DType dtype : {DType::f64, DType::f32, DType::bf16}) {
    for (const Parts& parts : kParts) {
      // Slices of wider projections: own parts beside values, the shared part beside a latent.
      const Tensor projection_heads = normal(dtype, {tokens, kHeads, parts.own + 2}, 1);
      const Tensor latent = normal(dtype, {tokens, 7 + parts.shared}, 2);
      const ConstTensorView own = projection_heads.view().slice(2, 0, parts.own);
      const ConstTensorView shared = latent.view().slice(1, 7, parts.shared);
      for (const auto& row : latent_key_variants()) {
        SCOPED_TRACE(fmt::format("{} {} {} + {}", row.name, name(dtype), parts.own, parts.shared));
        const Fenced k(dtype, {tokens, kHeads, parts.own + parts.shared}, 3);
        const LatentKeyArgs args{.k = k, .own = own, .shared = shared, .stream = stream};
        if (!runs(row, args)) continue;
        row.run(args);
        EXPECT_TRUE(k.intact());
        EXPECT_TRUE(same_bits(TensorView(k).slice(2, 0, parts.own), own));
        for (std::int64_t h = 0; h < kHeads; ++h) {
          TensorView tail = TensorView(k).slice(1, h, 1).slice(2, parts.own, parts.shared);
          tail.shape = {tokens, parts.shared};
          tail.strides = {tail.strides[0], 1};
          EXPECT_TRUE(same_bits(tail, shared)) << h;
        }
      }
    }
  }
}

TEST_P(LatentKey, SplitsAndSumsOverTheHeadsInOrder) {
  const std::int64_t tokens = GetParam();
  Workers workers(2);
  Stream stream(workers);
  for (const DType dtype : {DType::f64, DType::f32, DType::bf16}) {
    for (const Parts& parts : kParts) {
      const Tensor dk = normal(dtype, {tokens, kHeads, parts.own + parts.shared}, 3);
      Tensor sums(dtype, {tokens, parts.shared});
      for (std::int64_t i = 0; i < tokens * parts.shared; ++i) {
        const std::int64_t at = i / parts.shared * kHeads * (parts.own + parts.shared) + parts.own + i % parts.shared;
        double sum = 0;
        for (std::int64_t h = 0; h < kHeads; ++h) {
          sum += value_at(dk, at + h * (parts.own + parts.shared));
          if (dtype != DType::f64) sum = static_cast<double>(static_cast<float>(sum));
        }
        set_value(sums, i, sum);
      }
      for (const auto& row : latent_key_gradient_variants()) {
        SCOPED_TRACE(fmt::format("{} {} {} + {}", row.name, name(dtype), parts.own, parts.shared));
        const Fenced down(dtype, {tokens, kHeads, parts.own}, 2);
        const Fenced dshared(dtype, {tokens, parts.shared}, 5);
        const LatentKeyGradientArgs args{.down = down, .dshared = dshared, .dk = dk, .stream = stream};
        if (!runs(row, args)) continue;
        row.run(args);
        EXPECT_TRUE(down.intact() && dshared.intact());
        EXPECT_TRUE(same_bits(down, dk.view().slice(2, 0, parts.own)));
        EXPECT_TRUE(same_bits(dshared, sums));
      }
    }
  }
}

}  // namespace
}  // namespace shoestring::testing
