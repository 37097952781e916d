#include "kernels/router.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include "kernels/base/check.h"
#include "kernels/base/workers.h"
#include "kernels/cpu_refusals.h"
#include "kernels/element.h"
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
#if defined(__x86_64__)
  {"avx512", router::avx512::refuses, router::avx512::forward},
#endif
      {"simd", router::simd::refuses, router::simd::forward},
      {"reference", needs_cpu<RouterArgs>, router::reference::forward},
});
constexpr std::array kGradient = std::to_array<Variant<RouterGradientArgs>>({
    {"simd", router::simd::refuses_gradient, router::simd::gradient},
    {"reference", needs_cpu<RouterGradientArgs>, router::reference::gradient},
});

// `weights` are the weights or their gradient, `logits` the logits or theirs.
void check_shapes(ConstTensorView indices, ConstTensorView weights, ConstTensorView scores, ConstTensorView logits) {
  check(scores.shape.rank() == 2 && scores.shape[1] >= 1 && scores.shape[1] <= kRouterMaxExperts && scores.contiguous(),
        "router: scores are {}", scores.to_string());
  check(scores.dtype == DType::f32 || scores.dtype == DType::f64, "router: scores are {}", scores.to_string());
  check(indices.shape.rank() == 2 && indices.shape[0] == scores.shape[0] && indices.shape[1] >= 1 &&
            indices.shape[1] <= scores.shape[1] && indices.dtype == DType::i32 && indices.contiguous(),
        "router: indices are {} for scores {}", indices.to_string(), scores.to_string());
  check(weights.shape == indices.shape && weights.dtype == scores.dtype && weights.contiguous(),
        "router: weights are {} for indices {}", weights.to_string(), indices.to_string());
  check(logits.shape == scores.shape && logits.dtype == scores.dtype && logits.strides[1] == 1,
        "router: logits are {} for scores {}", logits.to_string(), scores.to_string());
}

void check_sequences(ConstTensorView load, ConstTensorView starts, ConstTensorView scores) {
  check(starts.shape.rank() == 1 && starts.shape[0] >= 1 && starts.dtype == DType::i32 && starts.contiguous(),
        "router: sequence_starts are {}", starts.to_string());
  const std::int64_t sequences = starts.shape[0] - 1;
  check(load.shape == Shape{sequences, scores.shape[1]} && load.dtype == scores.dtype && load.contiguous(),
        "router: load is {} for {} sequences of scores {}", load.to_string(), sequences, scores.to_string());
  const std::int32_t* start = starts.as<std::int32_t>();
  check(start[0] == 0 && start[sequences] == scores.shape[0] && std::is_sorted(start, start + sequences + 1),
        "router: sequences from {} to {} over {} tokens", start[0], start[sequences], scores.shape[0]);
}

// One sequence's share of the balance loss; writes its f.
template <class Real>
double sequence_loss(const RouterBalanceArgs& args, std::int64_t sequence) {
  const std::int64_t experts = args.scores.shape[1];
  const std::int64_t k = args.indices.shape[1];
  const std::int64_t begin = args.sequence_starts.as<std::int32_t>()[sequence];
  const std::int64_t end = args.sequence_starts.as<std::int32_t>()[sequence + 1];
  Real* load = args.load.as<Real>() + sequence * experts;
  std::fill(load, load + experts, Real{0});
  if (begin == end) return 0;
  const std::int32_t* indices = args.indices.as<std::int32_t>();
  for (std::int64_t slot = begin * k; slot < end * k; ++slot) load[indices[slot]] += 1;
  const double unit = static_cast<double>(experts) / static_cast<double>(k * (end - begin));
  for (std::int64_t e = 0; e < experts; ++e) load[e] = static_cast<Real>(unit * widened(load[e]));
  double total = 0;  // sum over tokens of sum_e f_e s'_e = T sum_e f_e P_e
  for (std::int64_t token = begin; token < end; ++token) {
    const Real* scores = args.scores.as<Real>() + token * experts;
    double sum = 0;
    double weighted = 0;
    for (std::int64_t e = 0; e < experts; ++e) {
      sum += widened(scores[e]);
      weighted += widened(load[e]) * widened(scores[e]);
    }
    if (sum > 0) total += weighted / sum;
  }
  return static_cast<double>(args.alpha) * total;
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
        "router: bias is {} for {} experts", args.bias.to_string(), experts);
  choose("router_forward", kForward, args).run(args);
}

void router_gradient(const RouterGradientArgs& args) {
  if (args.scores.shape[0] == 0) return;
  check_shapes(args.indices, args.dweights, args.scores, args.dlogits);
  check(args.load.empty() == args.sequence_starts.empty(), "router: load and sequence_starts come together");
  if (!args.load.empty()) check_sequences(args.load, args.sequence_starts, args.scores);
  choose("router_gradient", kGradient, args).run(args);
}

double router_balance_loss(const RouterBalanceArgs& args) {
  if (args.scores.shape[0] == 0) return 0;
  check(args.stream.device().kind == DeviceKind::cpu, "router: the balance loss runs on a CPU stream only");
  check(args.indices.shape.rank() == 2 && args.indices.shape[0] == args.scores.shape[0] &&
            args.indices.dtype == DType::i32 && args.indices.contiguous() && args.scores.contiguous(),
        "router: indices are {} for scores {}", args.indices.to_string(), args.scores.to_string());
  check_sequences(args.load, args.sequence_starts, args.scores);
  const auto loss_of = args.scores.dtype == DType::f64 ? sequence_loss<double> : sequence_loss<float>;
  std::vector<double> losses(static_cast<std::size_t>(args.load.shape[0]));
  args.stream.workers().each(args.load.shape[0], [&](std::int64_t sequence) {
    losses[static_cast<std::size_t>(sequence)] = loss_of(args, sequence);
  });
  double total = 0;
  for (const double loss : losses) total += loss;
  return total;
}

void router_count_load(TensorView counts, ConstTensorView indices, Stream& stream) {
  check(stream.device().kind == DeviceKind::cpu, "router: load is counted on a CPU stream only");
  check(counts.dtype == DType::i64 && counts.contiguous() && indices.dtype == DType::i32 && indices.contiguous(),
        "router: counts are {}, indices {}", counts.to_string(), indices.to_string());
  auto* count = counts.as<std::int64_t>();
  for (std::int64_t slot = 0; slot < indices.elements(); ++slot) {
    const std::int32_t expert = indices.as<std::int32_t>()[slot];
    check(expert < counts.elements(), "router: expert {} of {}", expert, counts.elements());
    if (expert >= 0) ++count[expert];
  }
}

void router_update_bias(TensorView bias, ConstTensorView counts, float speed) {
  const std::int64_t experts = counts.elements();
  check(counts.dtype == DType::i64 && counts.contiguous() && bias.elements() == experts && bias.contiguous() &&
            (bias.dtype == DType::f32 || bias.dtype == DType::f64),
        "router: bias is {}, counts {}", bias.to_string(), counts.to_string());
  const auto* count = counts.as<std::int64_t>();
  std::int64_t total = 0;
  for (std::int64_t e = 0; e < experts; ++e) total += count[e];
  for (std::int64_t e = 0; e < experts; ++e) {
    const std::int64_t error = total - count[e] * experts;  // experts * (mean - count)
    const float move = error > 0 ? speed : error < 0 ? -speed : 0.0f;
    if (bias.dtype == DType::f64) {
      bias.as<double>()[e] += static_cast<double>(move);
    } else {
      bias.as<float>()[e] += move;
    }
  }
}

double router_max_violation(ConstTensorView counts) {
  check(counts.dtype == DType::i64 && counts.contiguous(), "router: counts are {}", counts.to_string());
  std::int64_t total = 0;
  std::int64_t most = 0;
  for (std::int64_t e = 0; e < counts.elements(); ++e) {
    total += counts.as<std::int64_t>()[e];
    most = std::max(most, counts.as<std::int64_t>()[e]);
  }
  if (total == 0) return 0;
  return static_cast<double>(most) * static_cast<double>(counts.elements()) / static_cast<double>(total) - 1;
}

std::span<const Variant<RouterArgs>> router_forward_variants() { return kForward; }
std::span<const Variant<RouterGradientArgs>> router_gradient_variants() { return kGradient; }

}  // namespace shoestring
