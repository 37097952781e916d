#include "kernels/latent_key.h"

#include <gtest/gtest.h>

#include "kernels/base/workers.h"
#include "tests/support/fill.h"
#include "tests/support/gradient.h"

namespace shoestring::testing {
namespace {

constexpr std::int64_t kHeads = 3, kOwn = 5, kShared = 4;

class LatentKey : public ::testing::TestWithParam<std::int64_t> {};
INSTANTIATE_TEST_SUITE_P(Tokens, LatentKey, ::testing::Values(0, 1, 31, 33));

TEST_P(LatentKey, JoinsAndSplits) {
  const std::int64_t tokens = GetParam();
  Workers workers(2);
  Stream stream(workers);
  for (const DType dtype : {DType::f64, DType::f32, DType::bf16}) {
    // Slices of wider projections: own parts beside values, the shared part beside a latent.
    const Tensor projection_heads = normal(dtype, {tokens, kHeads, kOwn + 2}, 1);
    const Tensor latent = normal(dtype, {tokens, 7 + kShared}, 2);
    const ConstTensorView own = projection_heads.view().slice(2, 0, kOwn);
    const ConstTensorView shared = latent.view().slice(1, 7, kShared);
    const Fenced k(dtype, {tokens, kHeads, kOwn + kShared}, 3);
    for (const auto& row : latent_key_variants()) row.run({.k = k, .own = own, .shared = shared, .stream = stream});
    EXPECT_TRUE(k.intact());
    const Tensor dk = normal(dtype, {tokens, kHeads, kOwn + kShared}, 3);
    const Fenced down(dtype, {tokens, kHeads, kOwn}, 2);
    const Fenced dshared(dtype, {tokens, kShared}, 5);
    for (const auto& row : latent_key_gradient_variants()) {
      row.run({.down = down, .dshared = dshared, .dk = dk, .stream = stream});
    }
    EXPECT_TRUE(down.intact());
    EXPECT_TRUE(dshared.intact());
    for (std::int64_t t = 0; t < tokens; ++t) {
      for (std::int64_t i = 0; i < kShared; ++i) {
        double sum = 0;
        for (std::int64_t h = 0; h < kHeads; ++h) {
          const std::int64_t at = (t * kHeads + h) * (kOwn + kShared);
          EXPECT_EQ(value_at(k, at + kOwn + i), value_at(shared, t * kShared + i));
          sum += value_at(dk, at + kOwn + i);
        }
        EXPECT_NEAR(value_at(dshared, t * kShared + i), sum, dtype == DType::bf16 ? 0.05 : 1e-5);
      }
      for (std::int64_t h = 0; h < kHeads; ++h) {
        for (std::int64_t i = 0; i < kOwn; ++i) {
          const std::int64_t at = (t * kHeads + h) * (kOwn + kShared) + i;
          EXPECT_EQ(value_at(k, at), value_at(own, (t * kHeads + h) * kOwn + i));
          EXPECT_EQ(value_at(down, (t * kHeads + h) * kOwn + i), value_at(dk, at));
        }
      }
    }
  }
}

}  // namespace
}  // namespace shoestring::testing
