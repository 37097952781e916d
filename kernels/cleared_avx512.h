// Instructions that wait for the old value of the register they overwrite on some Intel processors (Golden Cove, the
// core of Sapphire Rapids). In a loop that chains one round's result to the next round's beginning; a register cleared
// first does not wait, and clearing is done by renaming. Included behind a target pragma with AVX-512 DQ and
// <immintrin.h>; internal linkage.
#pragma once

namespace shoestring::cleared {
namespace {

/// Lane by lane the one of larger magnitude, with the sign of a.
[[gnu::always_inline]] inline __m512 larger_magnitude(__m512 a, __m512 b) {
  __m512 result;
  asm("vpxor %x0, %x0, %x0\n\tvrangeps $3, %2, %1, %0" : "=&x"(result) : "v"(a), "v"(b));
  return result;
}

/// Elements of 64 or of 32 bits; the i-th is x[order[i]].
[[gnu::always_inline]] inline __m512i permute_epi64(__m512i order, __m512i x) {
  __m512i result;
  asm("vpxor %x0, %x0, %x0\n\tvpermq %2, %1, %0" : "=&x"(result) : "v"(order), "v"(x));
  return result;
}
[[gnu::always_inline]] inline __m512i permute_epi32(__m512i order, __m512i x) {
  __m512i result;
  asm("vpxor %x0, %x0, %x0\n\tvpermd %2, %1, %0" : "=&x"(result) : "v"(order), "v"(x));
  return result;
}

}  // namespace
}  // namespace shoestring::cleared
