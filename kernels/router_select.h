// Selection and weights of one token, from its scores, and its sequence: shared by the CPU rows of the router, so that
// they can only differ in how scores and their gradients are computed.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>

#include "kernels/router.h"

namespace shoestring::router {

/// Whether `a` ranks before `b`; NaN ranks last. Equal values keep their order of index.
template <class Real>
bool ranks_before(Real a, Real b) {
  return a > b || (std::isnan(b) && !std::isnan(a));
}

/// The best `k` of the indices [0, count) that `takes_part`, best first, into `chosen`; returns how many there were.
template <class Real, class TakesPart>
std::int64_t best(const Real* values, std::int64_t count, std::int64_t k, std::int32_t* chosen, TakesPart takes_part) {
  std::int64_t found = 0;
  for (std::int32_t i = 0; i < count; ++i) {
    if (!takes_part(i)) continue;
    if (found == k && !ranks_before(values[i], values[chosen[k - 1]])) continue;
    std::int64_t at = found < k ? found++ : k - 1;
    for (; at > 0 && ranks_before(values[i], values[chosen[at - 1]]); --at) chosen[at] = chosen[at - 1];
    chosen[at] = i;
  }
  return found;
}

/// Marks the groups that take part.
template <class Real>
void choose_groups(const Real* biased, std::int64_t experts, const RouterArgs& args, bool* takes_part) {
  const std::int64_t size = experts / args.groups;
  std::array<Real, kRouterMaxExperts> group_score;
  std::array<std::int32_t, kRouterMaxExperts> chosen;
  for (std::int64_t group = 0; group < args.groups; ++group) {
    const Real* members = biased + group * size;
    std::int32_t top[2] = {};
    const std::int64_t found = best(members, size, std::int64_t{2}, top, [](std::int32_t) { return true; });
    const bool two = found == 2 && !args.group_by_best;
    group_score[static_cast<std::size_t>(group)] = two ? members[top[0]] + members[top[1]] : members[top[0]];
    takes_part[group] = false;
  }
  const std::int64_t kept =
      best(group_score.data(), args.groups, args.topk_groups, chosen.data(), [](std::int32_t) { return true; });
  for (std::int64_t i = 0; i < kept; ++i) takes_part[chosen[static_cast<std::size_t>(i)]] = true;
}

template <class Real>
Real bias_of(ConstTensorView bias, std::int64_t expert) {
  return bias.dtype == DType::f64 ? static_cast<Real>(bias.as<double>()[expert])
                                  : static_cast<Real>(bias.as<float>()[expert]);
}

template <class Real>
using PerExpert = std::array<Real, kRouterMaxExperts>;

/// Indices and weights of `token`, whose scores stand in args.scores. `biased` is room for one number per expert.
template <class Real>
void route(const RouterArgs& args, std::int64_t token, PerExpert<Real>& biased) {
  const std::int64_t experts = args.scores.shape[1];
  const std::int64_t k = args.indices.shape[1];
  const Real* scores = args.scores.as<Real>() + token * experts;
  std::int32_t* indices = args.indices.as<std::int32_t>() + token * k;
  Real* weights = args.weights.as<Real>() + token * k;
  for (std::int64_t e = 0; e < experts; ++e) {
    biased[static_cast<std::size_t>(e)] = args.bias.empty() ? scores[e] : scores[e] + bias_of<Real>(args.bias, e);
  }
  if (args.groups > 1 && args.topk_groups < args.groups) {
    std::array<bool, kRouterMaxExperts> takes_part;
    choose_groups(biased.data(), experts, args, takes_part.data());
    best(biased.data(), experts, k, indices,
         [&](std::int32_t e) { return takes_part[static_cast<std::size_t>(e * args.groups / experts)]; });
  } else {
    best(biased.data(), experts, k, indices, [](std::int32_t) { return true; });
  }
  Real sum = 0;
  for (std::int64_t c = 0; c < k; ++c) sum += scores[indices[c]];
  const auto scale = static_cast<Real>(args.scale);
  for (std::int64_t c = 0; c < k; ++c) {
    const Real score = scores[indices[c]];
    weights[c] = args.normalize ? scale * (score / (sum + static_cast<Real>(1e-20))) : scale * score;
  }
}

/// sqrt(log(1 + e^x)) without overflow.
inline double sqrt_softplus(double x) { return std::sqrt(std::max(x, 0.0) + std::log1p(std::exp(-std::abs(x)))); }

/// The sequence that holds `token`.
inline std::int64_t sequence_of(ConstTensorView sequence_starts, std::int64_t token) {
  const std::int32_t* starts = sequence_starts.as<std::int32_t>();
  const std::int32_t* end = starts + sequence_starts.shape[0];
  return std::upper_bound(starts, end, static_cast<std::int32_t>(token)) - starts - 1;
}

/// Tokens per piece of work: some tens of microseconds of it.
inline std::int64_t token_grain(std::int64_t experts) { return 8192 / experts + 1; }

}  // namespace shoestring::router
