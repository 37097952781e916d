// Which rank owns which elements of a flat buffer (the door to ZeRO-1).
//
// A flat buffer of all parameters (or gradients) is cut into one contiguous range per rank, at multiples of a block.
// Blocks do not depend on the number of ranks, so anything computed per block (sums of squares) has the same bits under
// every layout. The last ranges may be short or empty: no padding is stored, and no tensor has to divide by anything.
#pragma once

#include <cstdint>

#include "parallel/communicator.h"

namespace shoestring {

inline constexpr std::int64_t kShardBlock = 4096;  // elements

struct ShardRange {
  std::int64_t begin = 0;
  std::int64_t end = 0;
  std::int64_t elements() const { return end - begin; }
  bool operator==(const ShardRange&) const = default;
};

class ShardLayout {
 public:
  ShardLayout() = default;
  ShardLayout(std::int64_t elements, int ranks);

  std::int64_t elements() const { return elements_; }
  int ranks() const { return ranks_; }
  /// The range of `rank`; equal lengths but for the last non-empty one, then empty ones.
  ShardRange range(int rank) const;
  int owner(std::int64_t element) const;
  /// The longest range: what a rank may have to store.
  std::int64_t widest() const { return width_; }

 private:
  std::int64_t elements_ = 0;
  std::int64_t width_ = 0;
  int ranks_ = 1;
};

/// Every rank contributes its own range of `full` (flat, any format) and receives all others, in place.
void all_gather_shards(Communicator& communicator, const ShardLayout& layout, TensorView full);

}  // namespace shoestring
