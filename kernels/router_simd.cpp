// The router's scores in vectors; selection and weights are those of the reference (router_select.h). Compiled once for
// each instruction set.
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

}  // namespace shoestring::router::simd
#endif
