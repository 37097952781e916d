// The router's scores in AVX-512; selection and weights are those of the reference (router_select.h).
#include <algorithm>
#include <limits>

#include "kernels/base/workers.h"
#include "kernels/cpu_refusals.h"
#include "kernels/exp_avx512.h"
#include "kernels/lanes_avx512.h"
#include "kernels/router.h"
#include "kernels/router_select.h"

// GCC 12 takes undefined operands inside its own intrinsics for uninitialised values (its bug 105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"

namespace shoestring::router::avx512 {

std::string refuses(const RouterArgs& args) { return needs_avx512(args, args.scores.dtype); }

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq")
namespace {

using namespace lanes_avx512;

void sigmoid_scores(const float* logits, float* scores, std::int64_t experts) {
  for (std::int64_t e = 0; e < experts; e += kLanes) {
    const __mmask16 mask = first(experts - e);
    store(scores + e, sigmoid(load(logits + e, mask)), mask);
  }
}

void softmax_scores(const float* logits, float* scores, std::int64_t experts) {
  __m512 most = _mm512_set1_ps(-std::numeric_limits<float>::infinity());
  for (std::int64_t e = 0; e < experts; e += kLanes) {
    const __mmask16 mask = first(experts - e);
    most = _mm512_mask_max_ps(most, mask, most, load(logits + e, mask));
  }
  const __m512 top = _mm512_set1_ps(_mm512_reduce_max_ps(most));
  __m512 total = _mm512_setzero_ps();
  for (std::int64_t e = 0; e < experts; e += kLanes) {
    const __mmask16 mask = first(experts - e);
    const __m512 power = exp(_mm512_sub_ps(load(logits + e, mask), top));
    total = _mm512_mask_add_ps(total, mask, total, power);
    store(scores + e, power, mask);
  }
  const __m512 divisor = _mm512_set1_ps(sum(total));
  for (std::int64_t e = 0; e < experts; e += kLanes) {
    const __mmask16 mask = first(experts - e);
    store(scores + e, _mm512_div_ps(load(scores + e, mask), divisor), mask);
  }
}

}  // namespace
#pragma GCC pop_options

namespace {

void sqrt_softplus_scores(const float* logits, float* scores, std::int64_t experts) {
  for (std::int64_t e = 0; e < experts; ++e)
    scores[e] = static_cast<float>(sqrt_softplus(static_cast<double>(logits[e])));
}

}  // namespace

void forward(const RouterArgs& args) {
  const std::int64_t experts = args.scores.shape[1];
  const auto score = args.kind == RouterKind::softmax   ? softmax_scores
                     : args.kind == RouterKind::sigmoid ? sigmoid_scores
                                                        : sqrt_softplus_scores;
  const auto tokens = [&](std::int64_t begin, std::int64_t end) {
    PerExpert<float> biased{};
    for (std::int64_t token = begin; token < end; ++token) {
      score(args.logits.as<float>() + token * args.logits.strides[0], args.scores.as<float>() + token * experts,
            experts);
      route(args, token, biased);
    }
  };
  args.stream.workers().split(args.scores.shape[0], token_grain(experts), tokens);
}

}  // namespace shoestring::router::avx512
