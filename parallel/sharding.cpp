#include "parallel/sharding.h"

#include <algorithm>

namespace shoestring {
namespace {

std::size_t index(int rank) { return static_cast<std::size_t>(rank); }

}  // namespace

ShardLayout::ShardLayout(std::int64_t elements, int ranks) : elements_(elements), ends_(index(ranks)) {
  check(elements >= 0 && ranks > 0, "{} elements on {} ranks", elements, ranks);
  const std::int64_t blocks = (elements + kShardBlock - 1) / kShardBlock;
  widest_ = (blocks + ranks - 1) / ranks * kShardBlock;
  for (int rank = 0; rank < ranks; ++rank) ends_[index(rank)] = std::min(elements, (rank + 1) * widest_);
}

ShardLayout::ShardLayout(std::vector<std::int64_t> ends) : ends_(std::move(ends)) {
  check(!ends_.empty() && ends_.front() >= 0 && std::is_sorted(ends_.begin(), ends_.end()), "{} ranges out of order",
        ends_.size());
  elements_ = ends_.back();
  for (int rank = 0; rank < ranks(); ++rank) widest_ = std::max(widest_, range(rank).elements());
}

ShardRange ShardLayout::range(int rank) const {
  check(rank >= 0 && rank < ranks(), "shard of rank {} of {}", rank, ranks());
  return {rank == 0 ? 0 : ends_[index(rank - 1)], ends_[index(rank)]};
}

int ShardLayout::owner(std::int64_t element) const {
  check(element >= 0 && element < elements_, "owner of element {} of {}", element, elements_);
  return static_cast<int>(std::upper_bound(ends_.begin(), ends_.end(), element) - ends_.begin());
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
