// AdamW in vectors: the operations of the reference in the same order, bound by memory. Compiled once for each
// instruction set.
#include <algorithm>
#include <cstdint>

#include "kernels/adamw.h"
#include "kernels/base/workers.h"
#include "kernels/cpu_refusals.h"

#include "kernels/simd_target.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/adamw_simd.cpp"
#include <hwy/foreach_target.h>

#include "kernels/lanes_simd.h"

HWY_BEFORE_NAMESPACE();
namespace shoestring::adamw::HWY_NAMESPACE {
namespace {

using namespace shoestring::HWY_NAMESPACE::lanes;

struct Lanes {
  explicit Lanes(const Coefficients<float>& c)
      : gradient_scale(broadcast(c.gradient_scale)),
        beta1(broadcast(c.beta1)),
        one_minus_beta1(broadcast(c.one_minus_beta1)),
        beta2(broadcast(c.beta2)),
        one_minus_beta2(broadcast(c.one_minus_beta2)),
        step_size(broadcast(c.step_size)),
        inverse_root_correction(broadcast(c.inverse_root_correction)),
        eps(broadcast(c.eps)),
        decay(broadcast(c.decay)) {}
  Floats gradient_scale, beta1, one_minus_beta1, beta2, one_minus_beta2, step_size, inverse_root_correction, eps, decay;
};

// One vector; returns the new parameters.
template <class Moment>
HWY_INLINE Floats update(const Lanes& c, float* parameter, Moment* first_moment, Moment* second_moment,
                         const float* gradient, First lanes) {
  const Floats g = c.gradient_scale * load(gradient, lanes);
  const Floats m = fma(c.beta1, load(first_moment, lanes), c.one_minus_beta1 * g);
  const Floats v = fma(c.beta2, load(second_moment, lanes), c.one_minus_beta2 * g * g);
  const Floats root = fma(sqrt(v), c.inverse_root_correction, c.eps);
  const Floats p = fnma(c.step_size, m / root, c.decay * load(parameter, lanes));
  store(first_moment, m, lanes);
  store(second_moment, v, lanes);
  store(parameter, p, lanes);
  return p;
}

template <class Moment>
void step_range(const AdamwArgs& args, std::int64_t begin, std::int64_t end) {
  const Lanes c(coefficients<float>(args));
  float* parameter = args.parameter.as<float>();
  Moment* first_moment = args.first_moment.as<Moment>();
  Moment* second_moment = args.second_moment.as<Moment>();
  const float* gradient = args.gradient.as<float>();
  BFloat16* copy = args.copy.as<BFloat16>();
  for (std::int64_t i = begin; i < end; i += kLanes) {
    const First lanes = first(end - i);
    const Floats p = update(c, parameter + i, first_moment + i, second_moment + i, gradient + i, lanes);
    if (copy != nullptr) store(copy + i, p, lanes);
  }
}

}  // namespace

void step(const AdamwArgs& args, std::int64_t begin, std::int64_t end) {
  args.first_moment.dtype == DType::f32 ? step_range<float>(args, begin, end) : step_range<BFloat16>(args, begin, end);
}

}  // namespace shoestring::adamw::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace shoestring::adamw::simd {

std::string refuses(const AdamwArgs& args) { return needs_simd(args, args.parameter.dtype); }

void step(const AdamwArgs& args) {
  const auto range = SHOESTRING_SIMD(step);
  args.stream.workers().split(args.parameter.elements(), 16384,
                              [&](std::int64_t begin, std::int64_t end) { range(args, begin, end); });
}

}  // namespace shoestring::adamw::simd
#endif
