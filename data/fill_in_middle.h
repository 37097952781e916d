// Fill-in-the-middle on token ids: one document rearranged so that a causal model learns to fill a gap.
//
//   document  prefix middle suffix end-of-document
//   becomes   begin prefix hole suffix end middle end-of-document          (prefix-suffix-middle, PSM)
//
// Which documents: data/packing.h. Where they are cut is decided here, as a pure function of (seed, source, epoch,
// place of the document). Source: DeepSeek-V3 technical report, section 4.1.
#pragma once

#include <cstdint>

#include "kernels/base/random.h"

namespace shoestring {

struct FillInMiddle {
  double rate = 0.1;  ///< DeepSeek's: share of documents
  std::int32_t begin_id = 0;
  std::int32_t hole_id = 0;
  std::int32_t end_id = 0;
};

inline constexpr std::uint32_t kFillInMiddleSentinels = 3;

/// Tokens [begin, end) of a document are its middle.
struct MiddleSpan {
  std::uint32_t begin = 0;
  std::uint32_t end = 0;
};

/// Two cuts, each uniform over 0 .. length - 1 (the end-of-document id stays last), in order.
MiddleSpan choose_middle(std::uint32_t length, const Random& random, std::uint64_t index);

/// Writes the rearranged document, length + 3 tokens, to `out`, which does not overlap `document` [length].
void fill_in_middle(const std::int32_t* document, std::uint32_t length, MiddleSpan middle, const FillInMiddle& ids,
                    std::int32_t* out);

}  // namespace shoestring
