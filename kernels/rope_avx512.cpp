#include <immintrin.h>

#include <algorithm>

#include "kernels/base/cpu.h"
#include "kernels/base/workers.h"
#include "kernels/lanes_avx512.h"
#include "kernels/rope.h"

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq")
// GCC 12 takes undefined operands inside its own intrinsics for uninitialised values (its bug 105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"

namespace shoestring::rotary::avx512 {
namespace {

namespace lanes = lanes_avx512;

struct Rotated {
  __m512 a;
  __m512 b;
};

// The same fused operations as the reference, so that the bits agree.
Rotated turn(__m512 a, __m512 b, __m512 cosine, __m512 sine) {
  return {_mm512_fmsub_ps(a, cosine, _mm512_mul_ps(b, sine)), _mm512_fmadd_ps(b, cosine, _mm512_mul_ps(a, sine))};
}

__m512 signed_sine(const float* sines, __mmask16 mask, bool inverse) {
  const __m512 sine = lanes::load(sines, mask);
  return inverse ? _mm512_xor_ps(sine, _mm512_set1_ps(-0.0f)) : sine;
}

template <class T>
void turn_half_split(T* x, const float* cosines, const float* sines, std::int64_t pairs, bool inverse) {
  for (std::int64_t i = 0; i < pairs; i += 16) {
    const __mmask16 mask = lanes::first(pairs - i);
    const Rotated turned = turn(lanes::load(x + i, mask), lanes::load(x + pairs + i, mask),
                                lanes::load(cosines + i, mask), signed_sine(sines + i, mask, inverse));
    lanes::store(x + i, turned.a, mask);
    lanes::store(x + pairs + i, turned.b, mask);
  }
}

// A pair of bf16 is one 32-bit lane: a below, b above.
void turn_interleaved(BFloat16* x, const float* cosines, const float* sines, std::int64_t pairs, bool inverse) {
  for (std::int64_t i = 0; i < pairs; i += 16) {
    const __mmask16 mask = lanes::first(pairs - i);
    const __m512i both = _mm512_maskz_loadu_epi32(mask, x + 2 * i);
    const __m512 a = _mm512_castsi512_ps(_mm512_slli_epi32(both, 16));
    const __m512 b = _mm512_castsi512_ps(_mm512_and_si512(both, _mm512_set1_epi32(-65536)));
    const Rotated turned = turn(a, b, lanes::load(cosines + i, mask), signed_sine(sines + i, mask, inverse));
    const __m512i lower = _mm512_cvtepu16_epi32(lanes::narrow(turned.a));
    const __m512i upper = _mm512_slli_epi32(_mm512_cvtepu16_epi32(lanes::narrow(turned.b)), 16);
    _mm512_mask_storeu_epi32(x + 2 * i, mask, _mm512_or_si512(lower, upper));
  }
}

void turn_interleaved(float* x, const float* cosines, const float* sines, std::int64_t pairs, bool inverse) {
  const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
  const __m512i odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
  const __m512i low = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
  const __m512i high = _mm512_add_epi32(low, _mm512_set1_epi32(8));
  for (std::int64_t i = 0; i < pairs; i += 16) {
    const __mmask16 mask = lanes::first(pairs - i);
    const __mmask16 below = lanes::first(2 * (pairs - i));
    const __mmask16 above = lanes::first(std::max<std::int64_t>(2 * (pairs - i) - 16, 0));
    const __m512 first = lanes::load(x + 2 * i, below);
    const __m512 second = lanes::load(x + 2 * i + 16, above);
    const Rotated turned = turn(_mm512_permutex2var_ps(first, even, second), _mm512_permutex2var_ps(first, odd, second),
                                lanes::load(cosines + i, mask), signed_sine(sines + i, mask, inverse));
    lanes::store(x + 2 * i, _mm512_permutex2var_ps(turned.a, low, turned.b), below);
    lanes::store(x + 2 * i + 16, _mm512_permutex2var_ps(turned.a, high, turned.b), above);
  }
}

template <class T>
void turn_tokens(const RopeArgs& args, std::int64_t begin, std::int64_t end) {
  const std::int64_t pairs = args.table.dim() / 2;
  for (std::int64_t token = begin; token < end; ++token) {
    const std::int64_t position = args.positions.as<std::int32_t>()[token];
    const float* cosines = args.table.cosines.as<float>() + position * pairs;
    const float* sines = args.table.sines.as<float>() + position * pairs;
    for (std::int64_t head = 0; head < args.x.shape[1]; ++head) {
      T* x = args.x.as<T>() + token * args.x.strides[0] + head * args.x.strides[1];
      if (args.table.style == RopeStyle::interleaved) {
        turn_interleaved(x, cosines, sines, pairs, args.inverse);
      } else {
        turn_half_split(x, cosines, sines, pairs, args.inverse);
      }
    }
  }
}

void turn_range(const RopeArgs& args, std::int64_t begin, std::int64_t end) {
  if (args.x.dtype == DType::f32) {
    turn_tokens<float>(args, begin, end);
  } else {
    turn_tokens<BFloat16>(args, begin, end);
  }
}

}  // namespace
}  // namespace shoestring::rotary::avx512
#pragma GCC pop_options

namespace shoestring::rotary::avx512 {

std::string refuses(const RopeArgs& args) {
  if (args.x.device.kind != DeviceKind::cpu) return "the tensor is on a GPU";
  if (!cpu_features().avx512) return "the processor lacks AVX-512";
  if (args.x.dtype == DType::f64) return "f64 is served by the reference only";
  return {};
}

void rotate(const RopeArgs& args) {
  args.stream.workers().split(args.x.shape[0], 16,
                              [&](std::int64_t begin, std::int64_t end) { turn_range(args, begin, end); });
}

}  // namespace shoestring::rotary::avx512
