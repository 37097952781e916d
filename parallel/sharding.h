// Which rank owns which elements of a flat buffer (the door to ZeRO-1).
//
// A flat buffer of all parameters (or gradients) is cut into one contiguous range per rank, at multiples of a block.
// Blocks do not depend on the number of ranks, so anything computed per block (sums of squares) has the same bits under
// every layout. The last ranges may be short or empty: no padding is stored, and no tensor has to divide by anything.
// Who has reasons of its own to cut elsewhere says where (core/optimizer/shards.h).
#pragma once

#include <cstdint>
#include <vector>

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
  /// The range of rank r ends before element ends[r], where the next one begins; not decreasing.
  explicit ShardLayout(std::vector<std::int64_t> ends);

  std::int64_t elements() const { return elements_; }
  int ranks() const { return static_cast<int>(ends_.size()); }
  /// The range of `rank`; where nobody said otherwise, equal lengths but for the last non-empty one, then empty ones.
  ShardRange range(int rank) const;
  int owner(std::int64_t element) const;
  /// The longest range: what a rank may have to store.
  std::int64_t widest() const { return widest_; }

 private:
  std::int64_t elements_ = 0;
  std::int64_t widest_ = 0;
  std::vector<std::int64_t> ends_{0};
};

/// Every rank contributes its own range of `full` (flat, any format) and receives all others, in place.
void all_gather_shards(Communicator& communicator, const ShardLayout& layout, TensorView full);

}  // namespace shoestring
