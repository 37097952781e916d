#include "parallel/sharding.h"

#include <algorithm>

namespace shoestring {
namespace {

constexpr std::int64_t kWidestDealt = std::int64_t{1} << 18;  // elements: a message is worth its start
constexpr std::int64_t kTurns = 8;                            // of dealing, where there is enough to deal

std::vector<ShardRange> dealt(std::int64_t elements, int ranks) {
  check(elements >= 0 && ranks > 0, "{} elements on {} ranks", elements, ranks);
  const std::int64_t turn = ranks * kTurns * kShardBlock;
  const std::int64_t width = std::min(kWidestDealt, (elements + turn - 1) / turn * kShardBlock);
  std::vector<ShardRange> ranges;
  for (std::int64_t begin = 0; begin < elements; begin += width) {
    ranges.push_back({begin, std::min(elements, begin + width), static_cast<int>(begin / width % ranks)});
  }
  return ranges;
}

}  // namespace

ShardLayout::ShardLayout(std::int64_t elements, int ranks) : ShardLayout(dealt(elements, ranks), ranks) {}

ShardLayout::ShardLayout(const std::vector<ShardRange>& ranges, int ranks)
    : owned_(static_cast<std::size_t>(ranks), 0) {
  for (const ShardRange& range : ranges) {
    check(range.begin == elements() && range.end >= range.begin && range.owner >= 0 && range.owner < ranks,
          "elements {} to {} of rank {} follow {} elements of {} ranks", range.begin, range.end, range.owner,
          elements(), ranks);
    owned_[static_cast<std::size_t>(range.owner)] += range.elements();
    if (range.elements() == 0) continue;
    if (!ranges_.empty() && ranges_.back().owner == range.owner) {
      ranges_.back().end = range.end;
    } else {
      ranges_.push_back(range);
    }
  }
}

std::int64_t ShardLayout::elements_of(int rank) const {
  check(rank >= 0 && rank < ranks(), "shard of rank {} of {}", rank, ranks());
  return owned_[static_cast<std::size_t>(rank)];
}

void all_gather_shards(Communicator& communicator, const ShardLayout& layout, TensorView full) {
  check(full.elements() == layout.elements() && communicator.size() == layout.ranks(),
        "all-gather of {} for shards of {} elements on {} ranks", full, layout.elements(), layout.ranks());
  if (communicator.size() == 1) return;
  const TensorView flat = full.reshaped({full.elements()});
  communicator.group_begin();
  for (const ShardRange& range : layout.ranges()) {
    const TensorView part = flat.slice(0, range.begin, range.elements());
    if (range.owner != communicator.rank()) {
      communicator.recv(part, range.owner);
      continue;
    }
    for (int peer = 0; peer < communicator.size(); ++peer) {
      if (peer != communicator.rank()) communicator.send(part, peer);
    }
  }
  communicator.group_end();
}

}  // namespace shoestring
