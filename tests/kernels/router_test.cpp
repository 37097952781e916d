#include "kernels/router.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "kernels/base/check.h"
#include "kernels/base/workers.h"
#include "kernels/router_load.h"
#include "tests/support/compare.h"
#include "tests/support/fill.h"
#include "tests/support/gradient.h"
#include "tests/support/recorded_bits.h"
#include "tests/support/row_coverage.h"

namespace shoestring {
namespace {

using namespace shoestring::testing;

struct Setting {
  RouterKind kind;
  std::int64_t experts, k, groups, topk_groups;
  bool normalize;
  float scale;
  bool group_by_best = false;
};

const std::vector<Setting> kSettings = {
    {RouterKind::sigmoid, 256, 8, 8, 4, true, 2.5f},  // DeepSeek-V3
    {RouterKind::softmax, 128, 8, 1, 1, true, 1.0f},  // Qwen3-MoE
    {RouterKind::softmax, 60, 4, 1, 1, false, 1.0f},  // no renormalisation
    {RouterKind::sqrt_softplus, 33, 6, 3, 2, true, 1.5f},
    {RouterKind::sigmoid, 16, 4, 4, 2, false, 1.0f},
    {RouterKind::sigmoid, 4, 2, 4, 2, true, 1.0f},            // groups of one
    {RouterKind::softmax, 160, 6, 8, 3, false, 16.0f, true},  // DeepSeek-V2
    {RouterKind::softmax, 1, 1, 1, 1, true, 1.0f},
    {RouterKind::sigmoid, 17, 17, 1, 1, true, 1.0f},  // everybody
};

struct Routed {
  Tensor indices, weights, scores;
  Routed(std::int64_t tokens, const Setting& s, DType dtype)
      : indices(DType::i32, {tokens, s.k}), weights(dtype, {tokens, s.k}), scores(dtype, {tokens, s.experts}) {}
  RouterArgs args(const Setting& s, ConstTensorView logits, ConstTensorView bias, Stream& stream) {
    return {.indices = indices,
            .weights = weights,
            .scores = scores,
            .logits = logits,
            .bias = bias,
            .kind = s.kind,
            .groups = s.groups,
            .topk_groups = s.topk_groups,
            .group_by_best = s.group_by_best,
            .normalize = s.normalize,
            .scale = s.scale,
            .stream = stream};
  }
};

double textbook_score(RouterKind kind, const std::vector<double>& logits, std::size_t e) {
  if (kind == RouterKind::sigmoid) return 1 / (1 + std::exp(-logits[e]));
  if (kind == RouterKind::sqrt_softplus) return std::sqrt(std::log(1 + std::exp(logits[e])));
  double sum = 0;
  for (const double x : logits) sum += std::exp(x);
  return std::exp(logits[e]) / sum;
}

// Selection by full sorts; stable, so ties keep the lower index.
std::vector<int> textbook_selection(const std::vector<float>& biased, const Setting& s) {
  const std::int64_t size = s.experts / s.groups;
  std::vector<float> group_score;
  for (std::int64_t g = 0; g < s.groups; ++g) {
    std::vector<float> members(biased.begin() + g * size, biased.begin() + (g + 1) * size);
    std::sort(members.rbegin(), members.rend());
    group_score.push_back(size > 1 && !s.group_by_best ? members[0] + members[1] : members[0]);
  }
  std::vector<int> groups(static_cast<std::size_t>(s.groups));
  std::iota(groups.begin(), groups.end(), 0);
  std::stable_sort(groups.begin(), groups.end(), [&](int a, int b) {
    return group_score[static_cast<std::size_t>(a)] > group_score[static_cast<std::size_t>(b)];
  });
  groups.resize(static_cast<std::size_t>(s.topk_groups));
  std::vector<int> candidates;
  for (int e = 0; e < s.experts; ++e) {
    if (std::count(groups.begin(), groups.end(), e / size) > 0) candidates.push_back(e);
  }
  std::stable_sort(candidates.begin(), candidates.end(), [&](int a, int b) {
    return biased[static_cast<std::size_t>(a)] > biased[static_cast<std::size_t>(b)];
  });
  candidates.resize(static_cast<std::size_t>(s.k));
  return candidates;
}

// Scores: a softmax sums `experts` positive terms; exp within 1 ulp of a rounded difference of size up to ~10.
void expect_scores(const Routed& r, const Setting& s, const Tensor& logits) {
  Tensor expected(DType::f64, r.scores.shape());
  for (std::int64_t t = 0; t < r.scores.shape()[0]; ++t) {
    std::vector<double> row;
    for (std::int64_t e = 0; e < s.experts; ++e) row.push_back(testing::value_at(logits, t * s.experts + e));
    for (std::int64_t e = 0; e < s.experts; ++e) {
      expected.as<double>()[t * s.experts + e] = textbook_score(s.kind, row, static_cast<std::size_t>(e));
    }
  }
  const double u = testing::unit_roundoff(DType::f32);
  EXPECT_TRUE(within(r.scores, expected, {.relative = 30 * u + testing::sum_error(s.experts, DType::f32)}));
}

// Indices and weights follow from the variant's own scores, exactly.
void expect_routing(const Routed& r, const Setting& s, const Tensor& bias) {
  for (std::int64_t t = 0; t < r.scores.shape()[0]; ++t) {
    const float* scores = r.scores.as<float>() + t * s.experts;
    std::vector<float> biased(scores, scores + s.experts);
    for (std::int64_t e = 0; e < s.experts; ++e) biased[static_cast<std::size_t>(e)] += bias.as<float>()[e];
    const std::vector<int> expected = textbook_selection(biased, s);
    float sum = 0;
    for (const int e : expected) sum += scores[e];
    for (std::int64_t c = 0; c < s.k; ++c) {
      const int e = expected[static_cast<std::size_t>(c)];
      ASSERT_EQ(r.indices.as<std::int32_t>()[t * s.k + c], e) << "token " << t << " choice " << c;
      const float weight = s.normalize ? s.scale * (scores[e] / sum) : s.scale * scores[e];
      ASSERT_FLOAT_EQ(r.weights.as<float>()[t * s.k + c], weight);
    }
  }
}

TEST(Router, EveryVariantSelectsByTheRule) {
  const std::int64_t tokens = 70;
  for (const Setting& s : kSettings) {
    const Tensor logits = normal(DType::f32, {tokens, s.experts}, 1, 2.0),
                 bias = normal(DType::f32, {s.experts}, 2, 0.1);
    for (const int count : {1, 2, 3}) {
      Workers workers(count);
      Stream stream(workers);
      for (const auto& variant : router_forward_variants()) {
        SCOPED_TRACE(
            fmt::format("{} experts {} kind {} workers {}", variant.name, s.experts, static_cast<int>(s.kind), count));
        Routed r(tokens, s, DType::f32);
        const RouterArgs args = r.args(s, logits, bias, stream);
        if (!testing::runs(variant, args)) continue;
        variant.run(args);
        expect_scores(r, s, logits);
        expect_routing(r, s, bias);
      }
    }
  }
}

// Written down on AVX2: the vector row's sums run in one order on every instruction set.
TEST(Router, TheVectorRowGivesTheSameBitsOnEveryProcessor) {
  const auto variants = router_forward_variants();
  const auto simd = std::find_if(variants.begin(), variants.end(), [](const auto& row) { return row.name == "simd"; });
  Workers workers(2);
  Stream stream(workers);
  const std::uint64_t expected[] = {0x50ABB7DA8D3D9AC5, 0x274E06E33EF22610};
  for (const int i : {0, 1}) {
    const Setting& s = kSettings[static_cast<std::size_t>(i)];
    const Tensor logits = uniform(DType::f32, {50, s.experts}, 1, -9, 9),
                 bias = uniform(DType::f32, {s.experts}, 2, 0, 0.1);
    Routed routed(50, s, DType::f32);
    const RouterArgs args = routed.args(s, logits, bias, stream);
    if (!simd->refuses(args).empty()) GTEST_SKIP() << simd->refuses(args);
    simd->run(args);
    EXPECT_EQ(hash_of({routed.scores}), expected[i]);
  }
}

TEST(Router, TiesGoToTheLowerIndex) {
  Workers workers(1);
  Stream stream(workers);
  const Setting s{RouterKind::sigmoid, 16, 4, 4, 2, true, 1.0f};
  const Tensor logits(DType::f32, {2, 16});  // all equal
  for (const auto& variant : router_forward_variants()) {
    Routed r(2, s, DType::f32);
    const RouterArgs args = r.args(s, logits, {}, stream);
    if (!testing::runs(variant, args)) continue;
    variant.run(args);
    for (int c = 0; c < 4; ++c) {
      EXPECT_EQ(r.indices.as<std::int32_t>()[c], c) << variant.name;
      EXPECT_EQ(r.weights.as<float>()[c], 0.25f) << variant.name;
    }
  }
}

TEST(Router, BiasMovesTheSelectionButNotTheWeights) {
  Workers workers(1);
  Stream stream(workers);
  const Setting s{RouterKind::sigmoid, 8, 2, 1, 1, false, 1.0f};
  const Tensor logits = normal(DType::f32, {20, 8}, 3);
  Tensor bias(DType::f32, {8});
  bias.as<float>()[5] = 10;
  Routed r(20, s, DType::f32);
  router_forward(r.args(s, logits, bias, stream));
  for (std::int64_t t = 0; t < 20; ++t) {
    EXPECT_EQ(r.indices.as<std::int32_t>()[2 * t], 5);
    EXPECT_EQ(r.weights.as<float>()[2 * t], r.scores.as<float>()[8 * t + 5]);
  }
}

TEST(Router, NanStaysInRange) {
  Workers workers(1);
  Stream stream(workers);
  const Setting s{RouterKind::sigmoid, 16, 4, 4, 2, true, 1.0f};
  Tensor logits(DType::f32, {3, 16});
  testing::fill_constant(logits, std::nan(""));
  logits.as<float>()[20] = 1;
  for (const auto& variant : router_forward_variants()) {
    Routed r(3, s, DType::f32);
    const RouterArgs args = r.args(s, logits, {}, stream);
    if (!testing::runs(variant, args)) continue;
    variant.run(args);
    for (int t = 0; t < 3; ++t) {
      std::vector<int> chosen(r.indices.as<std::int32_t>() + 4 * t, r.indices.as<std::int32_t>() + 4 * t + 4);
      std::sort(chosen.begin(), chosen.end());
      EXPECT_EQ(std::unique(chosen.begin(), chosen.end()), chosen.end());
      EXPECT_TRUE(chosen.front() >= 0 && chosen.back() < 16);
    }
  }
}

// Moves keep the selection: the logits of the test are far apart beside the step of the difference.
TEST(Router, GradientsMatchCentralDifferences) {
  Workers workers(1);
  Stream stream(workers);
  for (const Setting& s :
       {Setting{RouterKind::softmax, 12, 3, 1, 1, true, 1.3f}, Setting{RouterKind::softmax, 12, 3, 1, 1, false, 1.0f},
        Setting{RouterKind::sigmoid, 12, 3, 4, 2, true, 2.5f}, Setting{RouterKind::sigmoid, 12, 3, 1, 1, false, 0.5f},
        Setting{RouterKind::sqrt_softplus, 12, 4, 3, 2, true, 1.0f}}) {
    const std::int64_t tokens = 7;
    Tensor logits = normal(DType::f64, {tokens, 12}, 21, 1.5), bias = normal(DType::f64, {12}, 22, 0.1);
    const Tensor dweights = normal(DType::f64, {tokens, s.k}, 23);
    Tensor starts(DType::i32, {4}), load(DType::f64, {3, 12}), dlogits(DType::f64, {tokens, 12});
    const std::int32_t begins[] = {0, 3, 3, 7};
    std::copy(begins, begins + 4, starts.as<std::int32_t>());
    Routed r(tokens, s, DType::f64);
    const float alpha = 0.3f;
    const auto loss = [&] {
      router_forward(r.args(s, logits, bias, stream));
      double balance = 0;
      router_balance_loss({.loss = view_of(&balance, DType::f64, {1}),
                           .load = load,
                           .indices = r.indices,
                           .scores = r.scores,
                           .sequence_starts = starts,
                           .alpha = alpha,
                           .stream = stream});
      return testing::projection(r.weights, dweights) + balance;
    };
    loss();
    router_gradient({.dlogits = dlogits,
                     .dweights = dweights,
                     .indices = r.indices,
                     .scores = r.scores,
                     .kind = s.kind,
                     .normalize = s.normalize,
                     .scale = s.scale,
                     .load = load,
                     .sequence_starts = starts,
                     .alpha = alpha,
                     .stream = stream});
    EXPECT_TRUE(testing::gradient_matches(loss, logits, dlogits, {.step = 1e-4, .samples = 84}))
        << static_cast<int>(s.kind);
    dlogits.as<double>()[30] += 1e-5;
    EXPECT_FALSE(testing::gradient_matches(loss, logits, dlogits, {.step = 1e-4, .samples = 84}));
  }
}

/// A router's tokens after forward, with a balance loss over three sequences, in f32 and in the same numbers in f64.
struct Backward {
  static constexpr std::int64_t kTokens = 40;
  explicit Backward(const Setting& s) : setting(s), routed(kTokens, s, DType::f32), load(DType::f32, {3, s.experts}) {
    Workers workers(1);
    Stream stream(workers);
    const Tensor logits = normal(DType::f32, {kTokens, s.experts}, 1, 2.0);
    const std::int32_t begins[] = {0, 11, 11, kTokens};
    std::copy(begins, begins + 4, starts.as<std::int32_t>());
    const auto rows = router_forward_variants();
    const auto simd = std::find_if(rows.begin(), rows.end(), [](const auto& row) { return row.name == "simd"; });
    const RouterArgs forward = routed.args(s, logits, {}, stream);
    simd->refuses(forward).empty() ? simd->run(forward) : router_forward(forward);
    double balance = 0;
    router_balance_loss({.loss = view_of(&balance, DType::f64, {1}),
                         .load = load,
                         .indices = routed.indices,
                         .scores = routed.scores,
                         .sequence_starts = starts,
                         .alpha = 0.1f,
                         .stream = stream});
    wide_dweights = cast(dweights = normal(DType::f32, {kTokens, s.k}, 2), DType::f64);
    wide_scores = cast(routed.scores, DType::f64);
    wide_load = cast(load, DType::f64);
  }
  RouterGradientArgs args(TensorView dlogits, bool balanced, Stream& stream) const {
    const bool wide = dlogits.dtype == DType::f64;
    return {.dlogits = dlogits,
            .dweights = wide ? wide_dweights : dweights,
            .indices = routed.indices,
            .scores = wide ? wide_scores : routed.scores,
            .kind = setting.kind,
            .normalize = setting.normalize,
            .scale = setting.scale,
            .load = !balanced ? ConstTensorView{}
                    : wide    ? wide_load
                              : load,
            .sequence_starts = balanced ? ConstTensorView(starts) : ConstTensorView{},
            .alpha = 0.1f,
            .stream = stream};
  }

  Setting setting;
  Routed routed;
  Tensor load, starts{DType::i32, {4}}, dweights, wide_dweights, wide_scores, wide_load;
};

// The largest element of each token stands in all elements of `magnitude`'s row: sums over experts cancel.
Tensor largest_of_rows(const Tensor& values) {
  Tensor magnitude(DType::f64, values.shape());
  const std::int64_t columns = values.shape()[1];
  for (std::int64_t t = 0; t < values.shape()[0]; ++t) {
    const double* row = values.as<double>() + t * columns;
    double most = 0;
    for (std::int64_t e = 0; e < columns; ++e) most = std::max(most, std::abs(row[e]));
    std::fill(magnitude.as<double>() + t * columns, magnitude.as<double>() + (t + 1) * columns, most);
  }
  return magnitude;
}

// The reference computes in double and rounds once. The vector row's terms are rounded five times on their way, and its
// sums over experts are off by their rounding beside the largest term.
TEST(Router, GradientsInFloatAgreeWithDoubleForEveryNumberOfWorkers) {
  const double u = testing::unit_roundoff(DType::f32);
  for (const Setting& s : kSettings) {
    const Backward backward(s);
    for (const bool balanced : {false, true}) {
      for (const auto& variant : router_gradient_variants()) {
        SCOPED_TRACE(fmt::format("{} experts {} kind {} balanced {}", variant.name, s.experts, static_cast<int>(s.kind),
                                 balanced));
        Tensor first;
        for (const int count : {1, 2, 3}) {
          Workers workers(count);
          Stream stream(workers);
          Tensor dlogits = uniform(DType::f32, {Backward::kTokens, s.experts}, 3, 5, 6);
          const RouterGradientArgs args = backward.args(dlogits, balanced, stream);
          if (!testing::runs(variant, args)) continue;
          variant.run(args);
          if (count > 1) {
            EXPECT_TRUE(same_bits(dlogits, first));
            continue;
          }
          Tensor wide(DType::f64, dlogits.shape());
          router_gradient(backward.args(wide, balanced, stream));
          const bool exact = variant.name == "reference";
          EXPECT_TRUE(within(dlogits, wide,
                             {.relative = (exact ? 1.01 : 5) * u,
                              .absolute = exact ? 0 : testing::sum_error(s.experts, DType::f32),
                              .allow_zeros = true},
                             largest_of_rows(wide)));
          first = std::move(dlogits);
        }
      }
    }
  }
}

// Written down on AVX2.
TEST(Router, TheGradientsVectorRowGivesTheSameBitsOnEveryProcessor) {
  const auto variants = router_gradient_variants();
  const auto simd = std::find_if(variants.begin(), variants.end(), [](const auto& row) { return row.name == "simd"; });
  Workers workers(2);
  Stream stream(workers);
  const std::uint64_t expected[] = {0x32FCE23EA185B65A, 0x97AC99882DFC5FDA};
  for (const int i : {0, 1}) {
    const Setting& s = kSettings[static_cast<std::size_t>(i)];
    const Backward backward(s);
    Tensor dlogits(DType::f32, {Backward::kTokens, s.experts});
    const RouterGradientArgs args = backward.args(dlogits, true, stream);
    if (!simd->refuses(args).empty()) GTEST_SKIP() << simd->refuses(args);
    simd->run(args);
    EXPECT_EQ(hash_of({dlogits}), expected[i]);
  }
}

TEST(Router, BrokenContracts) {
  Workers workers(1);
  Stream stream(workers);
  Setting s{RouterKind::sigmoid, 16, 8, 4, 1, true, 1.0f};  // one group of four cannot give eight
  const Tensor logits(DType::f32, {2, 16}), wrong(DType::f32, {2, 15});
  Routed r(2, s, DType::f32);
  EXPECT_THROW(router_forward(r.args(s, logits, {}, stream)), Error);
  s.topk_groups = 2;
  EXPECT_NO_THROW(router_forward(r.args(s, logits, {}, stream)));
  EXPECT_THROW(router_forward(r.args(s, wrong, {}, stream)), Error);
}

}  // namespace
}  // namespace shoestring
