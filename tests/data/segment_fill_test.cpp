#include "data/segment_fill.h"

#include <gtest/gtest.h>

#include <vector>

#include "kernels/base/cpu.h"

namespace shoestring {
namespace {

TEST(SegmentFill, VariantsWriteTheStretchAndNothingElse) {
  for (const auto fill : {segment_fill::portable::fill_segment, segment_fill::avx512::fill_segment, fill_segment}) {
    if (fill == segment_fill::avx512::fill_segment && !cpu_features().avx512) continue;
    for (const std::int64_t count : {0, 1, 15, 16, 17, 31, 32, 33, 1000}) {
      std::vector<std::int32_t> start(static_cast<std::size_t>(count) + 2, -7);
      std::vector<std::int32_t> places(start);
      fill(start.data() + 1, places.data() + 1, count, 42);
      for (std::int64_t t = -1; t <= count; ++t) {
        const auto at = static_cast<std::size_t>(t + 1);
        const bool inside = t >= 0 && t < count;
        ASSERT_EQ(start[at], inside ? 42 : -7);
        ASSERT_EQ(places[at], inside ? t : -7);
      }
    }
  }
}

}  // namespace
}  // namespace shoestring
