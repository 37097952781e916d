#include "kernels/adamw.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "kernels/base/check.h"
#include "kernels/base/workers.h"
#include "kernels/cpu_refusals.h"
#include "kernels/element.h"

namespace shoestring {
namespace adamw {

template <class Real>
Coefficients<Real> coefficients(const AdamwArgs& args) {
  const auto step = static_cast<double>(args.step);
  const double correction1 = 1 - std::pow(args.beta1, step);
  const double correction2 = 1 - std::pow(args.beta2, step);
  return {.gradient_scale = static_cast<Real>(args.gradient_scale),
          .beta1 = static_cast<Real>(args.beta1),
          .one_minus_beta1 = static_cast<Real>(1 - args.beta1),
          .beta2 = static_cast<Real>(args.beta2),
          .one_minus_beta2 = static_cast<Real>(1 - args.beta2),
          .step_size = static_cast<Real>(args.learning_rate / correction1),
          .inverse_root_correction = static_cast<Real>(1 / std::sqrt(correction2)),
          .eps = static_cast<Real>(args.eps),
          .decay = static_cast<Real>(1 - args.learning_rate * args.weight_decay)};
}
template Coefficients<float> coefficients<float>(const AdamwArgs&);
template Coefficients<double> coefficients<double>(const AdamwArgs&);

namespace reference {
namespace {

template <class Real, class Moment>
void step_of(const AdamwArgs& args) {
  const Coefficients<Real> c = coefficients<Real>(args);
  Real* parameter = args.parameter.as<Real>();
  Moment* first = args.first_moment.as<Moment>();
  Moment* second = args.second_moment.as<Moment>();
  BFloat16* copy = args.copy.as<BFloat16>();
  const Real* gradient = args.gradient.as<Real>();
  args.stream.workers().split(args.parameter.elements(), 16384, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const Real g = c.gradient_scale * gradient[i];
      const Real m = std::fma(c.beta1, static_cast<Real>(first[i]), c.one_minus_beta1 * g);
      const Real v = std::fma(c.beta2, static_cast<Real>(second[i]), c.one_minus_beta2 * g * g);
      const Real update = m / std::fma(std::sqrt(v), c.inverse_root_correction, c.eps);
      const Real p = std::fma(-c.step_size, update, c.decay * parameter[i]);
      first[i] = Moment(m);
      second[i] = Moment(v);
      parameter[i] = p;
      if (copy != nullptr) copy[i] = BFloat16(static_cast<float>(p));
    }
  });
}

void step(const AdamwArgs& args) {
  if (args.parameter.dtype == DType::f64) return step_of<double, double>(args);
  if (args.first_moment.dtype == DType::f32) return step_of<float, float>(args);
  step_of<float, BFloat16>(args);
}

}  // namespace
}  // namespace reference
}  // namespace adamw

namespace {

constexpr std::array kVariants = std::to_array<Variant<AdamwArgs>>({
#if SHOESTRING_CUDA
  {"cuda", adamw::cuda::refuses, adamw::cuda::step},
#endif
#if defined(__x86_64__)
#endif
      {"simd", adamw::simd::refuses, adamw::simd::step}, {"reference", needs_cpu<AdamwArgs>, adamw::reference::step},
});

void check_span(ConstTensorView span, const AdamwArgs& args, bool right_format, const char* what) {
  check(right_format && span.elements() == args.parameter.elements() && span.contiguous(), "adamw: {} is {} for {}",
        what, span, args.parameter);
}

void check_args(const AdamwArgs& args) {
  const DType real = args.parameter.dtype;
  const DType moment = args.first_moment.dtype;
  check_span(args.parameter, args, real == DType::f32 || real == DType::f64, "parameter");
  check_span(args.gradient, args, args.gradient.dtype == real, "gradient");
  check_span(args.first_moment, args, moment == real || (moment == DType::bf16 && real == DType::f32), "first moment");
  check_span(args.second_moment, args, args.second_moment.dtype == moment, "second moment");
  if (!args.copy.empty()) check_span(args.copy, args, args.copy.dtype == DType::bf16, "copy");
  check(args.step >= 1, "adamw: step {} (the first is 1)", args.step);
}

}  // namespace

void adamw_step(const AdamwArgs& args) {
  check_args(args);
  if (args.parameter.elements() == 0) return;
  choose("adamw_step", kVariants, args).run(args);
}

void adamw_steps(std::span<const AdamwArgs> all) {
#if SHOESTRING_CUDA
  const auto fits = [](const AdamwArgs& args) {
    check_args(args);
    return choose("adamw_step", kVariants, args).run == adamw::cuda::step;
  };
  if (std::all_of(all.begin(), all.end(), fits)) return adamw::cuda::steps(all);
#endif
  for (const AdamwArgs& args : all) adamw_step(args);
}

std::span<const Variant<AdamwArgs>> adamw_step_variants() { return kVariants; }

}  // namespace shoestring
