// One document's stretch of a row: where its tokens may look, and their places in it.
#pragma once

#include <cstdint>

namespace shoestring {

/// segment_start[t] = first and positions[t] = t, for t in [0, count).
void fill_segment(std::int32_t* segment_start, std::int32_t* positions, std::int64_t count, std::int32_t first);

namespace segment_fill::portable {
void fill_segment(std::int32_t* segment_start, std::int32_t* positions, std::int64_t count, std::int32_t first);
}
namespace segment_fill::avx512 {
void fill_segment(std::int32_t* segment_start, std::int32_t* positions, std::int64_t count, std::int32_t first);
}

}  // namespace shoestring
