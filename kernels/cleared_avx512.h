// Instructions that on Intel's processors since Sapphire Rapids wait for the old value of the register they overwrite.
// In a loop that chains one round's result to the next round's beginning; a register cleared first does not wait, and
// clearing costs no execution. Included behind a target pragma with AVX-512 DQ and <immintrin.h>; internal linkage.
#pragma once

namespace shoestring::cleared {
namespace {

/// Lane by lane the one of larger magnitude, with the sign of a.
[[gnu::always_inline]] inline __m512 larger_magnitude(__m512 a, __m512 b) {
  __m512 result;
  asm("vpxor %x0, %x0, %x0\n\tvrangeps $3, %2, %1, %0" : "=&x"(result) : "v"(a), "v"(b));
  return result;
}

/// Quarters and eighths of a vector in the order of their indices.
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
