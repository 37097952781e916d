#include "data/segment_fill.h"

#if defined(__x86_64__)
#include <immintrin.h>

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq")

namespace shoestring::segment_fill::avx512 {

void fill_segment(std::int32_t* segment_start, std::int32_t* positions, std::int64_t count, std::int32_t first) {
  const __m512i same = _mm512_set1_epi32(first);
  const __m512i step = _mm512_set1_epi32(16);
  __m512i place = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  std::int64_t t = 0;
  for (; t + 16 <= count; t += 16) {
    _mm512_storeu_si512(segment_start + t, same);
    _mm512_storeu_si512(positions + t, place);
    place = _mm512_add_epi32(place, step);
  }
  const auto rest = static_cast<__mmask16>((1u << (count - t)) - 1u);
  _mm512_mask_storeu_epi32(segment_start + t, rest, same);
  _mm512_mask_storeu_epi32(positions + t, rest, place);
}

}  // namespace shoestring::segment_fill::avx512
#pragma GCC pop_options
#else
namespace shoestring::segment_fill::avx512 {
void fill_segment(std::int32_t* segment_start, std::int32_t* positions, std::int64_t count, std::int32_t first) {
  portable::fill_segment(segment_start, positions, count, first);
}
}  // namespace shoestring::segment_fill::avx512
#endif
