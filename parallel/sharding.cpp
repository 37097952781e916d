#include "parallel/sharding.h"

#include <algorithm>

namespace shoestring {

ShardLayout::ShardLayout(std::int64_t elements, int ranks) : elements_(elements), ranks_(ranks) {
  check(elements >= 0 && ranks > 0, "{} elements on {} ranks", elements, ranks);
  const std::int64_t blocks = (elements + kShardBlock - 1) / kShardBlock;
  width_ = (blocks + ranks - 1) / ranks * kShardBlock;
}

ShardRange ShardLayout::range(int rank) const {
  check(rank >= 0 && rank < ranks_, "shard of rank {} of {}", rank, ranks_);
  return {std::min(elements_, rank * width_), std::min(elements_, (rank + 1) * width_)};
}

int ShardLayout::owner(std::int64_t element) const {
  check(element >= 0 && element < elements_, "owner of element {} of {}", element, elements_);
  return static_cast<int>(element / width_);
}

void all_gather_shards(Communicator& communicator, const ShardLayout& layout, TensorView full) {
  check(full.elements() == layout.elements() && communicator.size() == layout.ranks(),
        "all-gather of {} for shards of {} elements on {} ranks", full.to_string(), layout.elements(), layout.ranks());
  if (communicator.size() == 1) return;
  const TensorView flat = full.reshaped({full.elements()});
  const ShardRange mine = layout.range(communicator.rank());
  communicator.group_begin();
  for (int peer = 0; peer < communicator.size(); ++peer) {
    if (peer == communicator.rank()) continue;
    const ShardRange theirs = layout.range(peer);
    // Both sides know both lengths, and both skip an empty message.
    if (mine.elements() > 0) communicator.send(flat.slice(0, mine.begin, mine.elements()), peer);
    if (theirs.elements() > 0) communicator.recv(flat.slice(0, theirs.begin, theirs.elements()), peer);
  }
  communicator.group_end();
}

}  // namespace shoestring
