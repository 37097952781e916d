#include "data/segment_fill.h"

#include "kernels/base/cpu.h"

namespace shoestring {

void segment_fill::portable::fill_segment(std::int32_t* segment_start, std::int32_t* positions, std::int64_t count,
                                          std::int32_t first) {
  for (std::int64_t t = 0; t < count; ++t) segment_start[t] = first;
  for (std::int64_t t = 0; t < count; ++t) positions[t] = static_cast<std::int32_t>(t);
}

void fill_segment(std::int32_t* segment_start, std::int32_t* positions, std::int64_t count, std::int32_t first) {
  cpu_features().avx512 ? segment_fill::avx512::fill_segment(segment_start, positions, count, first)
                        : segment_fill::portable::fill_segment(segment_start, positions, count, first);
}

}  // namespace shoestring
