#include "kernels/permute.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <tuple>
#include <vector>

#include "kernels/base/check.h"
#include "kernels/base/workers.h"
#include "tests/support/compare.h"
#include "tests/support/fill.h"
#include "tests/support/gradient.h"
#include "tests/support/row_coverage.h"

namespace shoestring {
namespace {

using testing::Fenced;
using testing::normal;
using testing::same_bits;
using testing::uniform;

// Random choices, some of them -1 (no expert here), with expert 1 empty and expert 2 favoured.
Tensor choices(std::int64_t tokens, std::int64_t k, std::int64_t experts, std::uint64_t seed) {
  Tensor indices(DType::i32, {tokens, k});
  testing::fill_integers(indices, seed, -1, experts);
  for (std::int64_t slot = 0; slot < tokens * k; ++slot) {
    std::int32_t& expert = indices.as<std::int32_t>()[slot];
    if (expert == 1) expert = static_cast<std::int32_t>(experts > 2 ? 2 : 0);
  }
  return indices;
}

std::int64_t rows_of(const Permutation& plan) { return plan.offsets.as<std::int64_t>()[plan.counts.shape[0]]; }

TEST(Permute, RowsAreSortedByExpertThenToken) {
  Workers workers(1);
  Stream stream(workers);
  for (const auto& [tokens, k, experts] :
       {std::tuple{0, 2, 4}, std::tuple{1, 1, 1}, std::tuple{33, 4, 8}, std::tuple{200, 2, 64}}) {
    const Tensor indices = choices(tokens, k, experts, 7);
    PermutationStorage storage(tokens, k, experts);
    const Permutation plan = storage.view();
    plan_permutation(plan, indices, stream);
    std::vector<std::pair<std::int32_t, std::int32_t>> expected;  // (expert, slot)
    for (std::int32_t slot = 0; slot < tokens * k; ++slot) {
      if (indices.as<std::int32_t>()[slot] >= 0) expected.emplace_back(indices.as<std::int32_t>()[slot], slot);
    }
    std::sort(expected.begin(), expected.end());
    ASSERT_EQ(rows_of(plan), static_cast<std::int64_t>(expected.size()));
    std::int64_t total = 0;
    for (std::int64_t e = 0; e < experts; ++e) {
      EXPECT_EQ(plan.offsets.as<std::int64_t>()[e], total);
      total += plan.counts.as<std::int64_t>()[e];
    }
    for (std::size_t row = 0; row < expected.size(); ++row) {
      const auto [expert, slot] = expected[row];
      EXPECT_EQ(plan.slot_of_row.as<std::int32_t>()[row], slot);
      EXPECT_EQ(plan.row_of_slot.as<std::int32_t>()[slot], static_cast<std::int32_t>(row));
      EXPECT_GE(static_cast<std::int64_t>(row), plan.offsets.as<std::int64_t>()[expert]);
      EXPECT_LT(static_cast<std::int64_t>(row), plan.offsets.as<std::int64_t>()[expert + 1]);
    }
  }
}

TEST(Permute, ExpertsBeginAtMultiples) {
  Workers workers(1);
  Stream stream(workers);
  constexpr std::int64_t kTokens = 33, kChoices = 3, kExperts = 6;
  const Tensor indices = choices(kTokens, kChoices, kExperts, 7);
  const Tensor x = normal(DType::f32, {kTokens, 5}, 1);
  const Tensor weights = uniform(DType::f32, {kTokens, kChoices}, 2, 0.1, 1.0);
  PermutationStorage close(kTokens, kChoices, kExperts);
  plan_permutation(close.view(), indices, stream);
  for (const std::int64_t multiple : {1, 2, 16}) {
    PermutationStorage storage(kTokens, kChoices, kExperts, {}, multiple);
    const Permutation plan = storage.view(), packed = close.view();
    plan_permutation(plan, indices, stream, multiple);
    EXPECT_TRUE(same_bits(plan.counts, packed.counts));
    const auto* offsets = plan.offsets.as<std::int64_t>();
    const auto* slot_of_row = plan.slot_of_row.as<std::int32_t>();
    const std::int64_t rows = rows_of(plan);
    EXPECT_LE(rows, most_rows(kTokens * kChoices, kExperts, multiple));
    Tensor xp(DType::f32, {rows, 5}), row_weights(DType::f32, {rows});
    gather_rows({.xp = xp, .x = x, .plan = plan, .stream = stream});
    weights_to_rows(row_weights, weights, plan, stream);
    for (std::int64_t e = 0; e < kExperts; ++e) {
      EXPECT_EQ(offsets[e] % multiple, 0);
      const std::int64_t count = plan.counts.as<std::int64_t>()[e];
      EXPECT_LT(offsets[e + 1] - offsets[e] - count, multiple);
      for (std::int64_t row = offsets[e]; row < offsets[e + 1]; ++row) {
        const std::int64_t place = row - offsets[e];
        const std::int32_t slot =
            place < count ? packed.slot_of_row.as<std::int32_t>()[packed.offsets.as<std::int64_t>()[e] + place] : -1;
        ASSERT_EQ(slot_of_row[row], slot);
        EXPECT_EQ(row_weights.as<float>()[row], slot < 0 ? 0.0f : weights.as<float>()[slot]);
        for (std::int64_t j = 0; j < 5; ++j) {
          const float expected = slot < 0 ? 0.0f : x.as<float>()[slot / kChoices * 5 + j];
          ASSERT_EQ(xp.as<float>()[row * 5 + j], expected);
        }
        if (slot >= 0) {
          EXPECT_EQ(plan.row_of_slot.as<std::int32_t>()[slot], row);
        }
      }
    }
    for (std::int64_t row = rows; row < plan.slot_of_row.elements(); ++row) EXPECT_EQ(slot_of_row[row], -1);
  }
  EXPECT_THROW(plan_permutation(close.view(), indices, stream, 16), Error);  // memory of a plan without room
}

struct Case {
  std::int64_t tokens, k, hidden, rows;
  Tensor indices, x, yp, weights;
  PermutationStorage storage;
  Permutation plan;

  Case(DType act, std::int64_t tokens_in, std::int64_t k_in, std::int64_t hidden_in, Stream& stream)
      : tokens(tokens_in),
        k(k_in),
        hidden(hidden_in),
        indices(choices(tokens, k, 6, 5)),
        x(normal(act, {tokens, hidden}, 1)),
        weights(uniform(act == DType::f64 ? DType::f64 : DType::f32, {tokens, k}, 2, 0.1, 1.0)),
        storage(tokens, k, 6),
        plan(storage.view()) {
    plan_permutation(plan, indices, stream);
    rows = rows_of(plan);
    yp = normal(act, {rows, hidden}, 3);
  }
  std::int32_t row(std::int64_t slot) const { return plan.row_of_slot.as<std::int32_t>()[slot]; }
};

// The contract in plain floats: fixed order, one rounding at the end. Every variant must give these bits.
Tensor combined(const Case& c, bool weighted, const Tensor* before) {
  Tensor y(c.x.dtype(), {c.tokens, c.hidden});
  for (std::int64_t i = 0; i < c.tokens * c.hidden; ++i) {
    float sum = before == nullptr ? 0.0f : static_cast<float>(testing::value_at(*before, i));
    for (std::int64_t slot = i / c.hidden * c.k; slot < (i / c.hidden + 1) * c.k; ++slot) {
      if (c.row(slot) < 0) continue;
      const auto term = static_cast<float>(testing::value_at(c.yp, c.row(slot) * c.hidden + i % c.hidden));
      sum = weighted ? std::fma(c.weights.as<float>()[slot], term, sum) : sum + term;
    }
    testing::set_value(y, i, static_cast<double>(sum));
  }
  return y;
}

TEST(Permute, EveryVariantGathersAndCombinesTheSameBits) {
  for (const int count : {1, 2, 3}) {
    Workers workers(count);
    Stream stream(workers);
    for (const DType act : {DType::f32, DType::bf16}) {
      for (const std::int64_t hidden : {1, 16, 31, 65, 130}) {
        const Case c(act, 41, 3, hidden, stream);
        const Tensor before = normal(act, {c.tokens, hidden}, 9);
        for (const bool weighted : {false, true}) {
          const ConstTensorView weights = weighted ? c.weights.view() : ConstTensorView{};
          Tensor gathered(act, {c.rows + 2, hidden});
          for (std::int64_t i = 0; i < c.rows * hidden; ++i) {
            const std::int64_t slot = c.plan.slot_of_row.as<std::int32_t>()[i / hidden];
            const auto value = static_cast<float>(testing::value_at(c.x, slot / c.k * hidden + i % hidden));
            testing::set_value(gathered, i,
                               static_cast<double>(weighted ? c.weights.as<float>()[slot] * value : value));
          }
          for (const auto& variant : gather_rows_variants()) {
            Fenced xp(act, {c.rows + 2, hidden}, 3);
            const GatherRowsArgs args{.xp = xp, .x = c.x, .plan = c.plan, .weights = weights, .stream = stream};
            if (!testing::runs(variant, args)) continue;
            variant.run(args);
            for (std::int64_t i = c.rows * hidden; i < (c.rows + 2) * hidden; ++i) {
              EXPECT_EQ(testing::value_at(xp, i), 0);
            }
            EXPECT_TRUE(same_bits(xp.view().slice(0, 0, c.rows), gathered.view().slice(0, 0, c.rows))) << variant.name;
            EXPECT_TRUE(xp.intact());
          }
          for (const bool accumulate : {false, true}) {
            const Tensor expected = combined(c, weighted, accumulate ? &before : nullptr);
            for (const auto& variant : combine_rows_variants()) {
              Fenced y(act, {c.tokens, hidden}, 5);
              if (accumulate) testing::assign(y, before);
              const CombineRowsArgs args{
                  .y = y, .yp = c.yp, .plan = c.plan, .weights = weights, .accumulate = accumulate, .stream = stream};
              if (!testing::runs(variant, args)) continue;
              variant.run(args);
              EXPECT_TRUE(same_bits(y, expected)) << variant.name;
              EXPECT_TRUE(y.intact());
            }
          }
        }
      }
    }
  }
}

TEST(Permute, GathersAnyFormat) {
  Workers workers(2);
  Stream stream(workers);
  const Case c(DType::f32, 40, 2, 48, stream);
  const Tensor payload = normal(DType::e4m3, {40, 48}, 8);
  Tensor rows(DType::e4m3, {c.rows, 48});
  gather_rows({.xp = rows, .x = payload, .plan = c.plan, .stream = stream});
  for (std::int64_t row = 0; row < c.rows; ++row) {
    const std::int64_t token = c.plan.slot_of_row.as<std::int32_t>()[row] / 2;
    EXPECT_TRUE(same_bits(rows.view().slice(0, row, 1), payload.view().slice(0, token, 1)));
  }
}

TEST(Permute, GradientsMatchCentralDifferences) {
  Workers workers(1);
  Stream stream(workers);
  Case c(DType::f64, 5, 3, 4, stream);
  const Tensor dy = normal(DType::f64, {5, 4}, 11), dxp = normal(DType::f64, {c.rows, 4}, 12);
  Tensor y(DType::f64, {5, 4}), xp(DType::f64, {c.rows, 4}), dyp(DType::f64, {c.rows, 4}), dx(DType::f64, {5, 4});
  Tensor dweights(DType::f64, {5, 3});
  const auto combine_loss = [&] {
    combine_rows({.y = y, .yp = c.yp, .plan = c.plan, .weights = c.weights, .stream = stream});
    return testing::projection(y, dy);
  };
  const auto gather_loss = [&] {
    gather_rows({.xp = xp, .x = c.x, .plan = c.plan, .weights = c.weights, .stream = stream});
    return testing::projection(xp, dxp);
  };
  gather_rows({.xp = dyp, .x = dy, .plan = c.plan, .weights = c.weights, .stream = stream});
  permute_weight_gradient({.dweights = dweights, .dy = dy, .yp = c.yp, .plan = c.plan, .stream = stream});
  EXPECT_TRUE(testing::gradient_matches(combine_loss, c.yp, dyp));
  EXPECT_TRUE(testing::gradient_matches(combine_loss, c.weights, dweights));
  combine_rows({.y = dx, .yp = dxp, .plan = c.plan, .weights = c.weights, .stream = stream});
  permute_weight_gradient({.dweights = dweights, .dy = c.x, .yp = dxp, .plan = c.plan, .stream = stream});
  EXPECT_TRUE(testing::gradient_matches(gather_loss, c.x, dx));
  EXPECT_TRUE(testing::gradient_matches(gather_loss, c.weights, dweights));
  dx.as<double>()[0] += 1e-5;
  EXPECT_FALSE(testing::gradient_matches(gather_loss, c.x, dx));
}

TEST(Permute, WeightsMoveToRowsAndBack) {
  Workers workers(1);
  Stream stream(workers);
  const Case c(DType::f32, 9, 2, 4, stream);
  Tensor rows(DType::f32, {c.rows}), back(DType::f32, {9, 2});
  weights_to_rows(rows, c.weights, c.plan, stream);
  weights_to_slots(back, rows, c.plan, stream);
  for (std::int64_t slot = 0; slot < 18; ++slot) {
    EXPECT_EQ(back.as<float>()[slot], c.row(slot) < 0 ? 0.0f : c.weights.as<float>()[slot]);
    if (c.row(slot) < 0) continue;
    EXPECT_EQ(rows.as<float>()[c.row(slot)], c.weights.as<float>()[slot]);
  }
}

TEST(Permute, BrokenContracts) {
  Workers workers(1);
  Stream stream(workers);
  const Case c(DType::f32, 4, 2, 8, stream);
  Tensor narrow(DType::f32, {c.rows, 7}), few(DType::i32, {3, 2}), y(DType::bf16, {4, 8});
  EXPECT_THROW(gather_rows({.xp = narrow, .x = c.x, .plan = c.plan, .stream = stream}), Error);
  EXPECT_THROW(plan_permutation(c.plan, few, stream), Error);
  EXPECT_THROW(combine_rows({.y = y, .yp = c.yp, .plan = c.plan, .stream = stream}), Error);
}

}  // namespace
}  // namespace shoestring
