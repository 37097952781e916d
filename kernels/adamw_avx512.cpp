// AdamW in AVX-512: the operations of the reference in the same order, 16 elements at a time, bound by memory.
#include <algorithm>
#include <cstdint>

#include "kernels/adamw.h"
#include "kernels/base/workers.h"
#include "kernels/cpu_refusals.h"
#include "kernels/lanes_avx512.h"

// GCC 12 takes undefined operands inside its own intrinsics for uninitialised values (its bug 105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"

namespace shoestring::adamw::avx512 {

std::string refuses(const AdamwArgs& args) { return needs_avx512(args, args.parameter.dtype); }

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq")
namespace {

using namespace lanes_avx512;

struct Lanes {
  explicit Lanes(const Coefficients<float>& c)
      : gradient_scale(_mm512_set1_ps(c.gradient_scale)),
        beta1(_mm512_set1_ps(c.beta1)),
        one_minus_beta1(_mm512_set1_ps(c.one_minus_beta1)),
        beta2(_mm512_set1_ps(c.beta2)),
        one_minus_beta2(_mm512_set1_ps(c.one_minus_beta2)),
        step_size(_mm512_set1_ps(c.step_size)),
        inverse_root_correction(_mm512_set1_ps(c.inverse_root_correction)),
        eps(_mm512_set1_ps(c.eps)),
        decay(_mm512_set1_ps(c.decay)) {}
  __m512 gradient_scale, beta1, one_minus_beta1, beta2, one_minus_beta2, step_size, inverse_root_correction, eps, decay;
};

// One vector; returns the new parameters.
template <class Moment>
__attribute__((always_inline)) inline __m512 update(const Lanes& c, float* parameter, Moment* first_moment,
                                                    Moment* second_moment, const float* gradient, __mmask16 mask) {
  const __m512 g = _mm512_mul_ps(c.gradient_scale, load(gradient, mask));
  const __m512 m = _mm512_fmadd_ps(c.beta1, load(first_moment, mask), _mm512_mul_ps(c.one_minus_beta1, g));
  const __m512 v =
      _mm512_fmadd_ps(c.beta2, load(second_moment, mask), _mm512_mul_ps(_mm512_mul_ps(c.one_minus_beta2, g), g));
  const __m512 root = _mm512_fmadd_ps(_mm512_sqrt_ps(v), c.inverse_root_correction, c.eps);
  const __m512 p = _mm512_fnmadd_ps(c.step_size, _mm512_div_ps(m, root), _mm512_mul_ps(c.decay, load(parameter, mask)));
  store(first_moment, m, mask);
  store(second_moment, v, mask);
  store(parameter, p, mask);
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
  // The copy is only written: past the caches it goes straight to memory instead of being fetched first.
  const bool streamed = copy != nullptr && args.parameter.elements() >= (std::int64_t{1} << 18) &&
                        reinterpret_cast<std::uintptr_t>(copy + begin) % 32 == 0;
  std::int64_t i = begin;
  for (; i + kLanes <= end; i += kLanes) {
    const __m512 p = update(c, parameter + i, first_moment + i, second_moment + i, gradient + i, first(kLanes));
    if (streamed) {
      _mm256_stream_si256(reinterpret_cast<__m256i*>(copy + i), narrow(p));
    } else if (copy != nullptr) {
      store(copy + i, p);
    }
  }
  if (i < end) {
    const __mmask16 mask = first(end - i);
    const __m512 p = update(c, parameter + i, first_moment + i, second_moment + i, gradient + i, mask);
    if (copy != nullptr) store(copy + i, p, mask);
  }
  if (streamed) _mm_sfence();
}

}  // namespace
#pragma GCC pop_options

void step(const AdamwArgs& args) {
  const auto range = args.first_moment.dtype == DType::f32 ? step_range<float> : step_range<BFloat16>;
  args.stream.workers().split(args.parameter.elements(), 16384,
                              [&](std::int64_t begin, std::int64_t end) { range(args, begin, end); });
}

}  // namespace shoestring::adamw::avx512
