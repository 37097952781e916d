#include "data/fill_in_middle.h"

#include <algorithm>

#include "kernels/base/check.h"

namespace shoestring {

MiddleSpan choose_middle(std::uint32_t length, const Random& random, std::uint64_t index) {
  check(length > 0, "a document without tokens");
  const RandomBits bits = random.bits(index);
  const auto below_length = [&](std::uint32_t word) {
    return static_cast<std::uint32_t>(std::uint64_t{word} * length >> 32);
  };
  const std::uint32_t a = below_length(bits.word[0]);
  const std::uint32_t b = below_length(bits.word[1]);
  return {std::min(a, b), std::max(a, b)};
}

void fill_in_middle(const std::int32_t* document, std::uint32_t length, MiddleSpan middle, const FillInMiddle& ids,
                    std::int32_t* out) {
  check(length > 0 && middle.begin <= middle.end && middle.end < length, "middle [{}, {}) of {} tokens", middle.begin,
        middle.end, length);
  *out++ = ids.begin_id;
  out = std::copy(document, document + middle.begin, out);
  *out++ = ids.hole_id;
  out = std::copy(document + middle.end, document + length - 1, out);
  *out++ = ids.end_id;
  out = std::copy(document + middle.begin, document + middle.end, out);
  *out = document[length - 1];
}

}  // namespace shoestring
