#include "kernels/router.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "kernels/base/check.h"
#include "kernels/base/workers.h"
#include "kernels/cpu_refusals.h"
#include "kernels/element.h"
#include "kernels/router_load.h"
#include "kernels/router_select.h"

namespace shoestring {
namespace router::reference {
namespace {

template <class Real>
void score(const Real* logits, Real* scores, std::int64_t experts, RouterKind kind) {
  if (kind == RouterKind::softmax) {
    const auto most = static_cast<double>(*std::max_element(logits, logits + experts));
    double sum = 0;
    for (std::int64_t e = 0; e < experts; ++e) sum += std::exp(widened(logits[e]) - most);
    for (std::int64_t e = 0; e < experts; ++e) {
      scores[e] = static_cast<Real>(std::exp(widened(logits[e]) - most) / sum);
    }
    return;
  }
  for (std::int64_t e = 0; e < experts; ++e) {
    const double x = widened(logits[e]);
    scores[e] = static_cast<Real>(kind == RouterKind::sigmoid ? 1 / (1 + std::exp(-x)) : sqrt_softplus(x));
  }
}

template <class Real>
void forward_of(const RouterArgs& args) {
  const std::int64_t experts = args.scores.shape[1];
  const auto tokens = [&](std::int64_t begin, std::int64_t end) {
    PerExpert<Real> biased{};
    for (std::int64_t token = begin; token < end; ++token) {
      score(args.logits.as<Real>() + token * args.logits.strides[0], args.scores.as<Real>() + token * experts, experts,
            args.kind);
      route(args, token, biased);
    }
  };
  args.stream.workers().split(args.scores.shape[0], token_grain(experts), tokens);
}

void forward(const RouterArgs& args) {
  args.scores.dtype == DType::f64 ? forward_of<double>(args) : forward_of<float>(args);
}

// d score of the chosen experts, through the normalisation.
template <class Real>
void from_weights(const RouterGradientArgs& args, std::int64_t token, const double* scores, double* dscores) {
  const std::int64_t k = args.indices.shape[1];
  const std::int32_t* indices = args.indices.as<std::int32_t>() + token * k;
  const Real* dweights = args.dweights.as<Real>() + token * k;
  const auto scale = static_cast<double>(args.scale);
  if (!args.normalize) {
    for (std::int64_t c = 0; c < k; ++c) dscores[indices[c]] += scale * widened(dweights[c]);
    return;
  }
  double sum = 1e-20;
  double mean = 0;
  for (std::int64_t c = 0; c < k; ++c) sum += scores[indices[c]];
  for (std::int64_t c = 0; c < k; ++c) mean += widened(dweights[c]) * (scores[indices[c]] / sum);
  for (std::int64_t c = 0; c < k; ++c) dscores[indices[c]] += scale / sum * (widened(dweights[c]) - mean);
}

// d score of all experts from the balance loss: T alpha sum_e f_e P_e has the derivative alpha f_e by one token's
// normalised score.
template <class Real>
void from_balance(const RouterGradientArgs& args, std::int64_t token, const double* scores, double* dscores) {
  const std::int64_t experts = args.scores.shape[1];
  const Real* load = args.load.as<Real>() + sequence_of(args.sequence_starts, token) * experts;
  double sum = 0;
  double mean = 0;
  for (std::int64_t e = 0; e < experts; ++e) sum += scores[e];
  if (!(sum > 0)) return;
  for (std::int64_t e = 0; e < experts; ++e) mean += widened(load[e]) * (scores[e] / sum);
  for (std::int64_t e = 0; e < experts; ++e) {
    dscores[e] += static_cast<double>(args.alpha) / sum * (widened(load[e]) - mean);
  }
}

// d logit from d score: the derivative of the score function, written in the score itself.
template <class Real>
void through_score(RouterKind kind, std::int64_t experts, const double* scores, const double* dscores, Real* dlogits) {
  double mean = 0;
  if (kind == RouterKind::softmax) {
    for (std::int64_t e = 0; e < experts; ++e) mean += dscores[e] * scores[e];
  }
  for (std::int64_t e = 0; e < experts; ++e) {
    const double gradient = dscores[e] - mean;
    const double s = scores[e];
    if (gradient == 0) {  // most experts of most tokens
      dlogits[e] = 0;
      continue;
    }
    double slope = 0;
    switch (kind) {
      case RouterKind::softmax: slope = s; break;
      case RouterKind::sigmoid: slope = s * (1 - s); break;
      case RouterKind::sqrt_softplus: slope = s > 0 ? -std::expm1(-s * s) / (2 * s) : 0; break;
    }
    dlogits[e] = static_cast<Real>(gradient * slope);
  }
}

template <class Real>
void gradient_of(const RouterGradientArgs& args) {
  const std::int64_t experts = args.scores.shape[1];
  const auto tokens = [&](std::int64_t begin, std::int64_t end) {
    PerExpert<double> scores{};
    PerExpert<double> dscores{};
    for (std::int64_t token = begin; token < end; ++token) {
      const Real* saved = args.scores.as<Real>() + token * experts;
      std::copy(saved, saved + experts, scores.begin());
      std::fill(dscores.begin(), dscores.begin() + experts, 0.0);
      from_weights<Real>(args, token, scores.data(), dscores.data());
      if (!args.load.empty()) from_balance<Real>(args, token, scores.data(), dscores.data());
      through_score(args.kind, experts, scores.data(), dscores.data(),
                    args.dlogits.as<Real>() + token * args.dlogits.strides[0]);
    }
  };
  args.stream.workers().split(args.scores.shape[0], token_grain(experts), tokens);
}

void gradient(const RouterGradientArgs& args) {
  args.scores.dtype == DType::f64 ? gradient_of<double>(args) : gradient_of<float>(args);
}

}  // namespace
}  // namespace router::reference

namespace {

constexpr std::array kForward = std::to_array<Variant<RouterArgs>>({
#if SHOESTRING_CUDA
  {"cuda", router::cuda::refuses, router::cuda::forward},
#endif
#if defined(__x86_64__)
#endif
      {"simd", router::simd::refuses, router::simd::forward},
      {"reference", needs_cpu<RouterArgs>, router::reference::forward},
});
constexpr std::array kGradient = std::to_array<Variant<RouterGradientArgs>>({
#if SHOESTRING_CUDA
  {"cuda", router::cuda::refuses, router::cuda::gradient},
#endif
      {"simd", router::simd::refuses_gradient, router::simd::gradient},
      {"reference", needs_cpu<RouterGradientArgs>, router::reference::gradient},
});

// `weights` are the weights or their gradient, `logits` the logits or theirs.
void check_shapes(ConstTensorView indices, ConstTensorView weights, ConstTensorView scores, ConstTensorView logits) {
  check(scores.shape.rank() == 2 && scores.shape[1] >= 1 && scores.shape[1] <= kRouterMaxExperts && scores.contiguous(),
        "router: scores are {}", scores);
  check(scores.dtype == DType::f32 || scores.dtype == DType::f64, "router: scores are {}", scores);
  check(indices.shape.rank() == 2 && indices.shape[0] == scores.shape[0] && indices.shape[1] >= 1 &&
            indices.shape[1] <= scores.shape[1] && indices.dtype == DType::i32 && indices.contiguous(),
        "router: indices are {} for scores {}", indices, scores);
  check(weights.shape == indices.shape && weights.dtype == scores.dtype && weights.contiguous(),
        "router: weights are {} for indices {}", weights, indices);
  check(logits.shape == scores.shape && logits.dtype == scores.dtype && logits.strides[1] == 1,
        "router: logits are {} for scores {}", logits, scores);
}

}  // namespace

void router_forward(const RouterArgs& args) {
  if (args.scores.shape[0] == 0) return;
  check_shapes(args.indices, args.weights, args.scores, args.logits);
  const std::int64_t experts = args.scores.shape[1];
  check(args.groups >= 1 && experts % args.groups == 0 && args.topk_groups >= 1 && args.topk_groups <= args.groups &&
            experts / args.groups * args.topk_groups >= args.indices.shape[1],
        "router: {} of {} groups over {} experts cannot give {}", args.topk_groups, args.groups, experts,
        args.indices.shape[1]);
  check(args.bias.empty() || (args.bias.shape == Shape{experts} && args.bias.contiguous() &&
                              (args.bias.dtype == DType::f32 || args.bias.dtype == DType::f64)),
        "router: bias is {} for {} experts", args.bias, experts);
  choose("router_forward", kForward, args).run(args);
}

void router_gradient(const RouterGradientArgs& args) {
  if (args.scores.shape[0] == 0) return;
  check_shapes(args.indices, args.dweights, args.scores, args.dlogits);
  check(args.load.empty() == args.sequence_starts.empty(), "router: load and sequence_starts come together");
  if (!args.load.empty()) router::check_sequences(args.load, args.sequence_starts, args.scores);
  choose("router_gradient", kGradient, args).run(args);
}

std::span<const Variant<RouterArgs>> router_forward_variants() { return kForward; }
std::span<const Variant<RouterGradientArgs>> router_gradient_variants() { return kGradient; }

}  // namespace shoestring
