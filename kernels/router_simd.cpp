// The router's scores and their gradient in vectors; selection and weights are those of the reference
// (router_select.h). Compiled once for each instruction set.
#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/base/workers.h"
#include "kernels/cpu_refusals.h"
#include "kernels/router.h"
#include "kernels/router_select.h"

#include "kernels/simd_target.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/router_simd.cpp"
#include <hwy/foreach_target.h>

#include "kernels/exp_simd.h"
#include "kernels/lanes_simd.h"

HWY_BEFORE_NAMESPACE();
namespace shoestring::router::HWY_NAMESPACE {
namespace {

using namespace shoestring::HWY_NAMESPACE::lanes;

void sigmoid_row(const float* logits, float* scores, std::int64_t experts) {
  for (std::int64_t e = 0; e < experts; e += kLanes) {
    const First lanes = first(experts - e);
    store(scores + e, sigmoid(load(logits + e, lanes)), lanes);
  }
}

void softmax_row(const float* logits, float* scores, std::int64_t experts) {
  const Floats least = broadcast(-std::numeric_limits<float>::infinity());
  Floats most = least;
  for (std::int64_t e = 0; e < experts; e += kLanes) {
    const First lanes = first(experts - e);
    most = greater(most, select(mask_of(lanes), load(logits + e, lanes), least));
  }
  const Floats top = broadcast(largest(most));
  Floats total = zeros();
  for (std::int64_t e = 0; e < experts; e += kLanes) {
    const First lanes = first(experts - e);
    const Floats power = exp(load(logits + e, lanes) - top);
    total = total + keep(mask_of(lanes), power);
    store(scores + e, power, lanes);
  }
  const Floats divisor = broadcast(sum(total));
  for (std::int64_t e = 0; e < experts; e += kLanes) {
    const First lanes = first(experts - e);
    store(scores + e, load(scores + e, lanes) / divisor, lanes);
  }
}

}  // namespace

void scores(const RouterArgs& args, std::int64_t token) {
  const std::int64_t experts = args.scores.shape[1];
  const float* logits = args.logits.as<float>() + token * args.logits.strides[0];
  float* to = args.scores.as<float>() + token * experts;
  switch (args.kind) {
    case RouterKind::softmax: return softmax_row(logits, to, experts);
    case RouterKind::sigmoid: return sigmoid_row(logits, to, experts);
    case RouterKind::sqrt_softplus:
      for (std::int64_t e = 0; e < experts; ++e) {
        to[e] = static_cast<float>(sqrt_softplus(static_cast<double>(logits[e])));
      }
  }
}

namespace {

// dscores += d score of the chosen experts: k numbers, in double as the reference has them.
void from_weights(const RouterGradientArgs& args, std::int64_t token, const float* scores, float* dscores) {
  const std::int64_t k = args.indices.shape[1];
  const std::int32_t* indices = args.indices.as<std::int32_t>() + token * k;
  const float* dweights = args.dweights.as<float>() + token * k;
  auto factor = static_cast<double>(args.scale);
  double mean = 0;
  if (args.normalize) {
    double sum = 1e-20;
    for (std::int64_t c = 0; c < k; ++c) sum += static_cast<double>(scores[indices[c]]);
    for (std::int64_t c = 0; c < k; ++c) {
      mean += static_cast<double>(dweights[c]) * (static_cast<double>(scores[indices[c]]) / sum);
    }
    factor /= sum;
  }
  for (std::int64_t c = 0; c < k; ++c) {
    dscores[indices[c]] += static_cast<float>(factor * (static_cast<double>(dweights[c]) - mean));
  }
}

// dscores += the balance loss's share: alpha / sum s (f_e - sum f_e s_e / sum s). `chosen` is f.
void from_balance(float alpha, std::int64_t experts, const float* chosen, const float* scores, float* dscores) {
  Floats total = zeros();
  Floats weighted = zeros();
  for (std::int64_t e = 0; e < experts; e += kLanes) {
    const First lanes = first(experts - e);
    const Floats score = load(scores + e, lanes);
    total = total + score;
    weighted = fma(load(chosen + e, lanes), score, weighted);
  }
  const float all = sum(total);
  if (!(all > 0)) return;
  const Floats mean = broadcast(sum(weighted) / all);
  const Floats factor = broadcast(alpha / all);
  for (std::int64_t e = 0; e < experts; e += kLanes) {
    const First lanes = first(experts - e);
    store(dscores + e, load(dscores + e, lanes) + factor * (load(chosen + e, lanes) - mean), lanes);
  }
}

// dlogits from dscores: the derivative of the score function, written in the score itself.
void through_score(RouterKind kind, std::int64_t experts, const float* scores, const float* dscores, float* dlogits) {
  if (kind == RouterKind::sqrt_softplus) {
    for (std::int64_t e = 0; e < experts; ++e) {
      const auto s = static_cast<double>(scores[e]);
      const double slope = s > 0 ? -std::expm1(-s * s) / (2 * s) : 0;
      dlogits[e] = static_cast<float>(static_cast<double>(dscores[e]) * slope);
    }
    return;
  }
  const bool softmax = kind == RouterKind::softmax;
  Floats weighted = zeros();
  for (std::int64_t e = 0; softmax && e < experts; e += kLanes) {
    const First lanes = first(experts - e);
    weighted = fma(load(dscores + e, lanes), load(scores + e, lanes), weighted);
  }
  const Floats mean = broadcast(sum(weighted));
  const Floats one = broadcast(1.0f);
  for (std::int64_t e = 0; e < experts; e += kLanes) {
    const First lanes = first(experts - e);
    const Floats score = load(scores + e, lanes);
    const Floats slope = softmax ? score : score * (one - score);
    store(dlogits + e, (load(dscores + e, lanes) - mean) * slope, lanes);
  }
}

}  // namespace

void gradient(const RouterGradientArgs& args, std::int64_t token, float* dscores) {
  const std::int64_t experts = args.scores.shape[1];
  const float* scores = args.scores.as<float>() + token * experts;
  std::fill(dscores, dscores + experts, 0.0f);
  from_weights(args, token, scores, dscores);
  if (!args.load.empty()) {
    const float* chosen = args.load.as<float>() + sequence_of(args.sequence_starts, token) * experts;
    from_balance(args.alpha, experts, chosen, scores, dscores);
  }
  through_score(args.kind, experts, scores, dscores, args.dlogits.as<float>() + token * args.dlogits.strides[0]);
}

}  // namespace shoestring::router::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace shoestring::router::simd {

std::string refuses(const RouterArgs& args) { return needs_simd(args, args.scores.dtype); }

void forward(const RouterArgs& args) {
  const auto scores = SHOESTRING_SIMD(scores);
  const auto tokens = [&](std::int64_t begin, std::int64_t end) {
    PerExpert<float> biased{};
    for (std::int64_t token = begin; token < end; ++token) {
      scores(args, token);
      route(args, token, biased);
    }
  };
  args.stream.workers().split(args.scores.shape[0], token_grain(args.scores.shape[1]), tokens);
}

std::string refuses_gradient(const RouterGradientArgs& args) { return needs_simd(args, args.scores.dtype); }

void gradient(const RouterGradientArgs& args) {
  const auto gradient = SHOESTRING_SIMD(gradient);
  const auto tokens = [&](std::int64_t begin, std::int64_t end) {
    PerExpert<float> dscores;
    for (std::int64_t token = begin; token < end; ++token) gradient(args, token, dscores.data());
  };
  args.stream.workers().split(args.scores.shape[0], token_grain(args.scores.shape[1]), tokens);
}

}  // namespace shoestring::router::simd
#endif
