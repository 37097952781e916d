// The router, loads of experts and plans on a CUDA device. What is chosen is compared bit for bit with what a CPU
// chooses from the device's scores: scores may differ in their last bits, and then so may the choice.
#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/base/check.h"
#include "kernels/base/copy.h"
#include "kernels/permute.h"
#include "kernels/router.h"
#include "kernels/router_load.h"
#include "kernels/router_select.h"
#include "tools/bench/cuda_compare.h"

namespace shoestring::cuda_compare {
namespace {

struct Case {
  std::int64_t tokens, experts, k;
  RouterKind kind;
  std::int64_t groups = 1, topk_groups = 1;
  bool group_by_best = false, normalize = false, hostile = false;
};

std::string describe(const Case& c) {
  return fmt::format("router kind {} [{}, {}] k {} groups {} of {}{}{}{}", static_cast<int>(c.kind), c.tokens,
                     c.experts, c.k, c.topk_groups, c.groups, c.group_by_best ? " by best" : "",
                     c.normalize ? " normalised" : "", c.hostile ? " hostile" : "");
}

enum Part : std::size_t { kLogits, kBias, kScores, kIndices, kWeights };

Tensors inputs_of(const Case& c) {
  Tensors tensors;
  tensors.push_back(numbers(DType::f32, {c.tokens, c.experts}, 61));
  tensors.push_back(numbers(DType::f32, {c.experts}, 62));
  for (std::int64_t i = 0; i < c.tokens * c.experts; i += 7) tensors[kLogits].as<float>()[i] = 0.25f;  // ties
  for (std::int64_t e = 0; e < c.experts; ++e) tensors[kBias].as<float>()[e] = e % 3 == 0 ? 0.0f : -0.0625f;
  if (c.hostile) {
    tensors[kLogits].as<float>()[1] = std::numeric_limits<float>::quiet_NaN();
    for (std::int64_t e = 0; e < c.experts; ++e) tensors[kLogits].as<float>()[c.experts + e] = -HUGE_VALF;
  }
  tensors.push_back(poisoned(DType::f32, {c.tokens, c.experts}));
  tensors.push_back(poisoned(DType::i32, {c.tokens, c.k}));
  tensors.push_back(poisoned(DType::f32, {c.tokens, c.k}));
  return tensors;
}

RouterArgs args_of(const Case& c, Tensors& t, Stream& stream) {
  return {.indices = t[kIndices],
          .weights = t[kWeights],
          .scores = t[kScores],
          .logits = t[kLogits],
          .bias = t[kBias],
          .kind = c.kind,
          .groups = c.groups,
          .topk_groups = c.topk_groups,
          .group_by_best = c.group_by_best,
          .normalize = c.normalize,
          .scale = 2.5f,
          .stream = stream};
}

void check_choice(Bench& bench, const Case& c) {
  const Tensors tensors = inputs_of(c);
  const auto forward = [&](Tensors& t, Stream& stream) { router_forward(args_of(c, t, stream)); };
  if (!c.hostile) {
    check_close(bench, describe(c), tensors, forward, [&](const Tensors& t) {
      std::vector<double> magnitude;
      for (std::int64_t i = 0; i < c.tokens * c.experts; ++i) {
        magnitude.push_back(value(t[kScores], i) * (20 + std::abs(value(t[kLogits], i))));
      }
      return std::vector<Close>{{kScores, "scores", sum_error(c.experts), magnitude}};
    });
  }
  bench.part(describe(c) + ": choice", [&] {
    const Tensors there = result_of(forward, tensors, bench.cuda);
    Tensors here;
    for (const Tensor& tensor : there) here.push_back(bench.to_host(tensor));
    Tensor indices(DType::i32, {c.tokens, c.k}), weights(DType::f32, {c.tokens, c.k});
    RouterArgs args = args_of(c, here, bench.cpu);
    args.indices = indices;
    args.weights = weights;
    router::PerExpert<float> biased{};
    for (std::int64_t token = 0; token < c.tokens; ++token) router::route(args, token, biased);
    std::string detail = difference(here[kIndices], indices);
    for (std::int64_t i = 0; i < c.tokens * c.k; ++i) {  // any NaN is as good as another
      const float a = here[kWeights].as<float>()[i], b = weights.as<float>()[i];
      if (a != b && !(std::isnan(a) && std::isnan(b))) detail += fmt::format("weight {}: {} instead of {}; ", i, a, b);
    }
    bench.verdict(describe(c) + ": choice", detail.empty(), detail);
  });
}

// ---- gradient: scores, indices, dweights, load, starts -> dlogits

enum GradientPart : std::size_t { kS, kI, kDw, kLoad, kStarts, kDlogits };

/// Terms of each element of dlogits, from the double side.
std::vector<double> gradient_terms(const Case& c, const Tensors& t, double alpha) {
  std::vector<double> terms;
  for (std::int64_t token = 0; token < c.tokens; ++token) {
    const auto score = [&](std::int64_t e) { return value(t[kS], token * c.experts + e); };
    const std::int32_t* chosen = t[kI].as<std::int32_t>() + token * c.k;
    double sum = 0, most = 0, all = 0, load = 0;
    for (std::int64_t i = 0; i < c.k; ++i) sum += score(chosen[i]);
    for (std::int64_t i = 0; i < c.k; ++i) most = std::max(most, std::abs(value(t[kDw], token * c.k + i)));
    for (std::int64_t e = 0; e < c.experts; ++e) all += score(e);
    for (std::int64_t i = 0; i < t[kLoad].view().elements(); ++i) load = std::max(load, value(t[kLoad], i));
    const double dscore = 2.5 * 2 * most / (c.normalize ? sum : 1.0) + 2 * alpha / all * load;
    for (std::int64_t e = 0; e < c.experts; ++e) terms.push_back(2 * dscore * std::max(score(e), 1e-3));
  }
  return terms;
}

void check_gradient(Bench& bench, const Case& c, float alpha) {
  Tensors forward = inputs_of(c);
  router_forward(args_of(c, forward, bench.cpu));
  Tensors tensors;
  tensors.push_back(std::move(forward[kScores]));
  tensors.push_back(std::move(forward[kIndices]));
  tensors.push_back(numbers(DType::f32, {c.tokens, c.k}, 63));
  tensors.push_back(numbers(DType::f32, {3, c.experts}, 64));
  for (std::int64_t i = 0; i < 3 * c.experts; ++i) {
    float& load = tensors[kLoad].as<float>()[i];
    load = std::abs(load);
  }
  tensors.emplace_back(DType::i32, Shape{4});
  const std::int32_t starts[] = {0, 3, 3, static_cast<std::int32_t>(c.tokens)};
  std::copy(std::begin(starts), std::end(starts), tensors[kStarts].as<std::int32_t>());
  tensors.push_back(poisoned(DType::f32, {c.tokens, c.experts}));
  const auto gradient = [&](Tensors& t, Stream& stream) {
    RouterGradientArgs args{.dlogits = t[kDlogits],
                            .dweights = t[kDw],
                            .indices = t[kI],
                            .scores = t[kS],
                            .kind = c.kind,
                            .normalize = c.normalize,
                            .scale = 2.5f,
                            .alpha = alpha,
                            .stream = stream};
    if (alpha > 0) {
      args.load = t[kLoad];
      args.sequence_starts = t[kStarts];
    }
    router_gradient(args);
  };
  check_close(bench, describe(c) + fmt::format(": gradient, alpha {}", alpha), tensors, gradient,
              [&](const Tensors& t) {
                return std::vector<Close>{
                    {kDlogits, "dlogits", sum_error(c.experts), gradient_terms(c, t, static_cast<double>(alpha))}};
              });
}

// ---- loads

void check_loads(Bench& bench) {
  constexpr std::int64_t kTokens = 50, kExperts = 70, kChoices = 4;
  Tensors tensors;
  tensors.push_back(integers({kTokens, kChoices}, kExperts, 11));
  tensors.push_back(numbers(DType::f32, {kTokens, kExperts}, 65));
  for (std::int64_t i = 0; i < kTokens * kExperts; ++i) {
    float& score = tensors[1].as<float>()[i];
    score = std::abs(score);
  }
  tensors.emplace_back(DType::i32, Shape{4});
  const std::int32_t starts[] = {0, 17, 17, kTokens};
  std::copy(std::begin(starts), std::end(starts), tensors[2].as<std::int32_t>());
  tensors.emplace_back(DType::i64, Shape{kExperts});
  for (int i = 0; i < 2; ++i) tensors.push_back(numbers(i == 0 ? DType::f32 : DType::bf16, {kExperts}, 66));
  tensors[5] = Tensor(DType::f64, {kExperts});
  check_bits(bench, "router loads and bias", tensors, [](Tensors& t, Stream& stream) {
    router_count_load(t[3], t[0], stream);
    router_count_load(t[3], t[0], stream);
    router_update_bias(t[4], t[3], 0.001f, stream);
    router_update_bias(t[5], t[3], 0.001f, stream);
  });
  bench.part("router balance loss", [&] {
    tensors.emplace_back(DType::f32, Shape{3, kExperts});
    for (const std::int64_t size : {3, 1}) tensors.emplace_back(DType::f64, Shape{size});
    const auto balance = [](Tensors& t, Stream& stream) {
      for (int i = 0; i < 2; ++i) {  // added up
        router_balance_loss({.loss = t[8],
                             .losses = t[7],
                             .load = t[6],
                             .indices = t[0],
                             .scores = t[1],
                             .sequence_starts = t[2],
                             .alpha = 0.02f,
                             .stream = stream});
      }
    };
    const Tensors expected = result_of(balance, tensors, bench.cpu), there = result_of(balance, tensors, bench.cuda);
    const double ours = *bench.to_host(there[8]).as<double>(), theirs = *expected[8].as<double>();
    const std::string detail = difference(bench.to_host(there[6]), expected[6]);
    bench.verdict("router balance loss", detail.empty() && theirs > 0 && std::abs(ours - theirs) <= 1e-13 * theirs,
                  detail + fmt::format("{} instead of {}", ours, theirs));
  });
}

// ---- plans

void check_plan(Bench& bench, std::int64_t tokens, std::int64_t k, std::int64_t experts, std::int64_t multiple = 1) {
  Tensors tensors;
  tensors.push_back(integers({tokens, k}, static_cast<int>(experts) + 2, 5));  // of two experts more: another rank's
  for (std::int64_t i = 0; i < tokens * k; i += 9) tensors[0].as<std::int32_t>()[i] = -1;
  tensors.push_back(poisoned(DType::i64, {experts}));
  tensors.push_back(poisoned(DType::i64, {experts + 1}));
  const std::int64_t rows = most_rows(tokens * k, experts, multiple);
  for (const std::int64_t size : {tokens * k, rows}) tensors.push_back(poisoned(DType::i32, {size}));
  tensors.push_back(numbers(DType::f32, {tokens, k}, 67));
  for (const std::int64_t size : {rows, tokens * k}) tensors.push_back(poisoned(DType::f32, {size}));
  check_bits(bench,
             fmt::format("plan_permutation of {} slots, {} experts at multiples of {}", tokens * k, experts, multiple),
             tensors, [multiple](Tensors& t, Stream& stream) {
               const Permutation plan{t[1], t[2], t[3], t[4]};
               plan_permutation(plan, t[0], stream, multiple);
               weights_to_rows(t[6], t[5], plan, stream);
               weights_to_slots(t[7], t[6], plan, stream);
             });
}

}  // namespace

void check_experts(Bench& bench) {
  for (const RouterKind kind : {RouterKind::softmax, RouterKind::sigmoid, RouterKind::sqrt_softplus}) {
    check_choice(bench, {.tokens = 9, .experts = 70, .k = 6, .kind = kind});
    check_choice(bench,
                 {.tokens = 5, .experts = 64, .k = 8, .kind = kind, .groups = 8, .topk_groups = 3, .normalize = true});
    check_gradient(bench, {.tokens = 9, .experts = 70, .k = 6, .kind = kind}, 0.0f);
    check_gradient(bench, {.tokens = 9, .experts = 33, .k = 4, .kind = kind, .normalize = true}, 0.02f);
  }
  check_choice(bench,
               {.tokens = 3, .experts = 40, .k = 5, .kind = RouterKind::sigmoid, .groups = 40, .topk_groups = 7});
  check_choice(bench, {.tokens = 3,
                       .experts = 64,
                       .k = 6,
                       .kind = RouterKind::softmax,
                       .groups = 4,
                       .topk_groups = 2,
                       .group_by_best = true});
  check_choice(bench, {.tokens = 2, .experts = 1, .k = 1, .kind = RouterKind::softmax});
  check_choice(bench, {.tokens = 3, .experts = 48, .k = 9, .kind = RouterKind::sigmoid, .hostile = true});
  if (!bench.quick) check_choice(bench, {.tokens = 6, .experts = 1024, .k = 16, .kind = RouterKind::sigmoid});
  check_loads(bench);
  check_plan(bench, 1, 1, 1);
  check_plan(bench, 100, 3, 7);
  check_plan(bench, 171, 3, 40);
  check_plan(bench, 171, 3, 40, 16);
}

}  // namespace shoestring::cuda_compare
