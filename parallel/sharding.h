// Which rank owns which elements of a flat buffer (the door to ZeRO-1).
//
// A flat buffer of all parameters (or gradients) is cut into ranges, each of one owner. Where nobody has reasons of its
// own (core/optimizer/shards.h has), equal ranges are dealt out in turns: whatever part of the buffer is complete
// first, all ranks have a share of it. No padding is stored, and no tensor has to divide by anything.
#pragma once

#include <cstdint>
#include <vector>

#include "parallel/communicator.h"

namespace shoestring {

inline constexpr std::int64_t kShardBlock = 4096;  // elements: ranges that are dealt out are multiples

/// Elements [begin, end) and whose they are.
struct ShardRange {
  std::int64_t begin = 0;
  std::int64_t end = 0;
  int owner = 0;
  std::int64_t elements() const { return end - begin; }
  bool operator==(const ShardRange&) const = default;
};

class ShardLayout {
 public:
  ShardLayout() = default;
  ShardLayout(std::int64_t elements, int ranks);
  /// `ranges` follow each other from element 0 on; neighbours of one owner become one.
  ShardLayout(const std::vector<ShardRange>& ranges, int ranks);

  std::int64_t elements() const { return ranges_.empty() ? 0 : ranges_.back().end; }
  int ranks() const { return static_cast<int>(owned_.size()); }
  /// All of the buffer, in order.
  const std::vector<ShardRange>& ranges() const { return ranges_; }
  std::int64_t elements_of(int rank) const;

 private:
  std::vector<ShardRange> ranges_;
  std::vector<std::int64_t> owned_{0};  // elements of each rank
};

/// Every rank contributes its own ranges of `full` (flat, any format) and receives all others, in place.
void all_gather_shards(Communicator& communicator, const ShardLayout& layout, TensorView full);

}  // namespace shoestring
