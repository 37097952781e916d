#include "data/packing.h"

#include <algorithm>
#include <bit>
#include <limits>
#include <numeric>
#include <utility>

#include "data/permutation.h"
#include "kernels/base/check.h"

namespace shoestring {
namespace {

constexpr int kLengthBits = 20;
constexpr std::uint64_t kLengthMask = (std::uint64_t{1} << kLengthBits) - 1;
constexpr std::uint64_t kMaxTokens = std::uint64_t{1} << (64 - kLengthBits);
constexpr std::uint32_t kSentinels = 3;
constexpr std::int64_t kSlackShare = 2048;  // a group's slots hold at most 1/2048 more than its pieces
constexpr std::uint64_t kSpareBins = 4096;  // one bin in so many may be more than the least possible

std::uint32_t length_of(std::uint64_t piece) { return static_cast<std::uint32_t>(piece & kLengthMask); }
std::uint64_t begin_of(std::uint64_t piece) { return piece >> kLengthBits; }

/// A set of integers below `size` that answers "the least member >= x": a tree of 64-bit words.
class OrderedSet {
 public:
  explicit OrderedSet(std::uint32_t size) {
    std::size_t bits = size;
    do {
      bits = (bits + 63) / 64;
      levels_.emplace_back(bits);
    } while (bits > 1);
  }
  void insert(std::uint32_t value) {
    for (auto& level : levels_) {
      level[value / 64] |= std::uint64_t{1} << value % 64;
      value /= 64;
    }
  }
  void erase(std::uint32_t value) {
    for (auto& level : levels_) {
      level[value / 64] &= ~(std::uint64_t{1} << value % 64);
      if (level[value / 64] != 0) return;
      value /= 64;
    }
  }
  static constexpr std::uint32_t kNone = std::numeric_limits<std::uint32_t>::max();
  std::uint32_t at_least(std::uint32_t value) const {
    for (std::size_t depth = 0; depth < levels_.size(); ++depth) {
      if (value / 64 >= levels_[depth].size()) return kNone;
      const std::uint64_t rest = levels_[depth][value / 64] >> value % 64;
      if (rest != 0) {
        value += static_cast<std::uint32_t>(std::countr_zero(rest));
        for (; depth > 0; --depth) {
          value = value * 64 + static_cast<std::uint32_t>(std::countr_zero(levels_[depth - 1][value]));
        }
        return value;
      }
      value = value / 64 + 1;
    }
    return kNone;
  }

 private:
  std::vector<std::vector<std::uint64_t>> levels_;
};

/// Pieces of all documents in source order: calls visit(begin, length, whole) for each, and document(pieces, kept
/// tokens, all tokens) behind the pieces of one.
template <class Visit, class Document>
void for_each_piece(std::span<const DocumentEnds> documents, const PackingOptions& options, const Visit& visit,
                    const Document& document) {
  const auto capacity = static_cast<std::uint64_t>(options.sequence) + 1;
  for (const DocumentEnds& shard : documents) {
    std::uint64_t begin = 0;
    for (const std::uint64_t end : shard.ends) {
      if (end <= begin) {  // they rose when the shard was opened
        fail(ExitCode::io,
             "document ends of a shard cannot be read any more; look after its disk, then run the same command again");
      }
      const std::uint64_t tokens = end - begin;
      const bool whole = tokens <= capacity;
      std::uint64_t rest = tokens;
      if (!whole && options.long_documents == LongDocuments::cut) rest = capacity;
      if (!whole && options.long_documents == LongDocuments::drop) rest = 0;
      std::int64_t pieces = 0;
      std::uint64_t kept = 0;
      while (rest > 0) {
        const auto length = static_cast<std::uint32_t>(std::min(rest, capacity));
        const std::uint64_t at = shard.base + begin;
        if (whole || !options.useful || options.useful(at, length)) {
          visit(at, length, whole);
          kept += length;
          ++pieces;
        }
        begin += length;
        rest -= length;
      }
      document(pieces, kept, tokens);
      begin = end;
    }
  }
}

/// Indices of `sizes`, largest first, equals in order.
std::vector<std::uint32_t> by_falling_size(const std::vector<std::uint32_t>& sizes, std::uint32_t largest) {
  std::vector<std::uint32_t> place(static_cast<std::size_t>(largest) + 2, 0);
  for (const std::uint32_t size : sizes) place[largest - size + 1] += 1;
  for (std::size_t at = 1; at < place.size(); ++at) place[at] += place[at - 1];
  std::vector<std::uint32_t> order(sizes.size());
  for (std::uint32_t at = 0; at < sizes.size(); ++at) order[place[largest - sizes[at]]++] = at;
  return order;
}

struct Bins {
  std::vector<std::uint32_t> of_slot;
  std::size_t count = 0;
};

/// Each slot, in `order`, into the fullest bin that still has room for it.
Bins best_fit(const std::vector<std::uint32_t>& order, const std::vector<std::uint32_t>& sizes,
              std::uint32_t capacity) {
  constexpr std::uint32_t kNone = OrderedSet::kNone;
  Bins bins;
  bins.of_slot.resize(sizes.size());
  std::vector<std::uint32_t> with_room(capacity + 1, kNone);  // bins by room left, as lists through `next_bin`
  std::vector<std::uint32_t> next_bin;
  OrderedSet rooms(capacity + 1);
  for (const std::uint32_t slot : order) {
    std::uint32_t room = rooms.at_least(sizes[slot]);
    std::uint32_t bin = static_cast<std::uint32_t>(next_bin.size());
    if (room == kNone) {
      next_bin.push_back(kNone);
      room = capacity;
    } else {
      bin = with_room[room];
      with_room[room] = next_bin[bin];
      if (with_room[room] == kNone) rooms.erase(room);
    }
    bins.of_slot[slot] = bin;
    const std::uint32_t left = room - sizes[slot];
    if (left == 0) continue;
    if (with_room[left] == kNone) rooms.insert(left);
    next_bin[bin] = with_room[left];
    with_room[left] = bin;
  }
  bins.count = next_bin.size();
  return bins;
}

// Why no document gives a piece: one that fits always does.
std::string why_none(const PackingOptions& options, std::int64_t documents) {
  if (documents == 0) return ": there is none; name a folder of shards that hold some";
  std::string_view rest = ", and none of the parts that they are split into holds anything to learn; ";
  if (options.long_documents == LongDocuments::cut) rest = ", and their fronts hold nothing to learn; ";
  if (options.long_documents == LongDocuments::drop) rest = "; cut or split them (long_documents), or ";
  return fmt::format(": all {} are longer than {} tokens{}give samples more tokens (sequence)", documents,
                     options.sequence + 1, rest);
}

}  // namespace

PackingPlan::PackingPlan(std::span<const DocumentEnds> documents, const PackingOptions& options) : options_(options) {
  check(options.sequence >= 1 && options.sequence < static_cast<std::int64_t>(kLengthMask),
        "cannot pack samples of {} tokens; 1 to {} are possible", options.sequence, kLengthMask - 1);
  check(options.fill_in_middle_rate >= 0 && options.fill_in_middle_rate <= 1, "a fill-in-the-middle rate of {}",
        options.fill_in_middle_rate);
  check(options.window_pieces >= 1 && options.window_pieces <= std::int64_t{1} << 30, "windows of {} pieces",
        options.window_pieces);
  collect(documents);
  const auto per_window = static_cast<std::uint64_t>(options.window_pieces);
  windows_ = (pieces_.size() + per_window - 1) / per_window;
  const std::uint64_t parts = pieces_.size() - whole_pieces_;
  form_groups(0, parts, false);
  form_groups(parts, pieces_.size(), true);
  pack_slots(mark_slots());
  const auto bins = static_cast<std::int64_t>(bin_begin_.size()) - 1;
  counts_.samples = bins * static_cast<std::int64_t>(windows_);
  counts_.padding = counts_.samples * (options.sequence + 1) - counts_.tokens - counts_.sentinels;
}

// Counting sort: parts of split documents, then whole documents; each longest first, equals in source order.
void PackingPlan::collect(std::span<const DocumentEnds> documents) {
  const auto capacity = static_cast<std::uint64_t>(options_.sequence) + 1;
  const auto key = [&](std::uint32_t length, bool whole) { return (whole ? capacity : 0) + capacity - length; };
  std::vector<std::uint64_t> place(2 * capacity + 1, 0);
  const auto count = [&](std::uint64_t begin, std::uint32_t length, bool whole) {
    check(length > 0 && begin + length < kMaxTokens, "token {} of a source: 2^44 are the most", begin + length);
    place[key(length, whole) + 1] += 1;
    counts_.pieces += 1;
    counts_.tokens += length;
    whole_pieces_ += whole ? 1 : 0;
  };
  for_each_piece(documents, options_, count, [&](std::int64_t pieces, std::uint64_t kept, std::uint64_t all) {
    counts_.documents += 1;
    counts_.dropped_tokens += static_cast<std::int64_t>(all - kept);
    counts_.dropped_documents += pieces == 0 ? 1 : 0;
    counts_.split_documents += pieces > 1 ? 1 : 0;
    counts_.truncated_documents += pieces > 0 && kept < all ? 1 : 0;
  });
  if (counts_.pieces == 0) {
    fail(ExitCode::bad_data, "no document makes a sample{}", why_none(options_, counts_.dropped_documents));
  }
  for (std::size_t at = 1; at < place.size(); ++at) place[at] += place[at - 1];
  pieces_.resize(static_cast<std::size_t>(counts_.pieces));
  const auto put = [&](std::uint64_t begin, std::uint32_t length, bool whole) {
    pieces_[place[key(length, whole)]++] = begin << kLengthBits | length;
  };
  for_each_piece(documents, options_, put, [](std::int64_t, std::uint64_t, std::uint64_t) {});
}

// A stratum is one piece for each window. A group takes strata while its slots waste little on its shorter pieces.
void PackingPlan::form_groups(std::uint64_t first_piece, std::uint64_t last_piece, bool whole) {
  std::uint64_t tokens = 0;
  std::uint64_t slack = 0;
  for (std::uint64_t begin = first_piece; begin < last_piece; begin += windows_) {
    const std::uint64_t end = std::min(begin + windows_, last_piece);
    std::uint64_t stratum_tokens = 0;
    for (std::uint64_t at = begin; at < end; ++at) stratum_tokens += length_of(pieces_[at]);
    if (begin > first_piece) {
      const std::uint64_t wasted = (end - begin) * groups_.back().slot_tokens - stratum_tokens;
      if ((slack + wasted) * kSlackShare <= tokens + stratum_tokens) {
        slack += wasted;
        tokens += stratum_tokens;
        groups_.back().pieces += end - begin;
        slots_.push_back({static_cast<std::uint32_t>(groups_.size()) - 1, 0, groups_.back().strata++ & 0x7FFFFFFFu});
        continue;
      }
    }
    const std::uint32_t slot = length_of(pieces_[begin]);
    groups_.push_back({begin, end - begin, 1, slot, whole});
    slots_.push_back({static_cast<std::uint32_t>(groups_.size()) - 1, 0, 0});
    tokens = stratum_tokens;
    slack = (end - begin) * slot - stratum_tokens;
  }
}

// Decides which slots fill-in-the-middle applies to; returns the size of every slot, one per stratum.
std::vector<std::uint32_t> PackingPlan::mark_slots() {
  const auto capacity = static_cast<std::uint32_t>(options_.sequence) + 1;
  const Random random(options_.seed, Purpose::fill_in_middle, options_.source);
  std::vector<std::uint32_t> sizes(slots_.size());
  for (std::uint32_t stratum = 0; stratum < sizes.size(); ++stratum) {
    const Group& group = groups_[slots_[stratum].group];
    const bool full = group.pieces == group.strata * windows_;  // else which slot stays empty changes with the epoch
    const bool marked = group.whole && full && group.slot_tokens + kSentinels <= capacity &&
                        random.uniform(stratum) < options_.fill_in_middle_rate;
    sizes[stratum] = group.slot_tokens + (marked ? kSentinels : 0);
    slots_[stratum].marked = marked;
    counts_.fill_in_middle_documents += marked ? static_cast<std::int64_t>(windows_) : 0;
  }
  counts_.sentinels = counts_.fill_in_middle_documents * kSentinels;
  return sizes;
}

// Slots come in random order, so that a sample mixes lengths, and the last and shortest of them in falling order, so
// that they fill the gaps. More of them fall in order until nearly no bin is wasted; all of them is best-fit
// decreasing.
void PackingPlan::pack_slots(const std::vector<std::uint32_t>& slot_tokens) {
  const auto capacity = static_cast<std::uint32_t>(options_.sequence) + 1;
  const std::uint64_t total = std::accumulate(slot_tokens.begin(), slot_tokens.end(), std::uint64_t{0});
  const std::uint64_t least_bins = (total + capacity - 1) / capacity;
  const std::vector<std::uint32_t> falling = by_falling_size(slot_tokens, capacity);
  const Random random(options_.seed, Purpose::document_order, 2 * options_.source + 1);
  std::vector<std::uint32_t> order;
  Bins packed;
  for (const std::uint64_t tail_share : {4, 2, 1}) {
    order = falling;
    std::size_t shuffled = order.size();
    for (std::uint64_t tail = 0; shuffled > 0 && tail < total / tail_share;) tail += slot_tokens[order[--shuffled]];
    for (std::size_t at = shuffled; at > 1; --at) std::swap(order[at - 1], order[random.below(at, at)]);
    packed = best_fit(order, slot_tokens, capacity);
    if (packed.count <= least_bins + least_bins / kSpareBins) break;
  }
  bin_begin_.assign(packed.count + 1, 0);
  for (const std::uint32_t bin : packed.of_slot) bin_begin_[bin + 1] += 1;
  for (std::size_t bin = 1; bin < bin_begin_.size(); ++bin) bin_begin_[bin] += bin_begin_[bin - 1];
  std::vector<std::uint32_t> place(bin_begin_.begin(), bin_begin_.end() - 1);
  std::vector<Slot> sorted(slots_.size());
  for (const std::uint32_t slot : order) sorted[place[packed.of_slot[slot]]++] = slots_[slot];
  slots_ = std::move(sorted);
}

void PackingPlan::sample(std::int64_t epoch, std::int64_t position, std::vector<Piece>& pieces) const {
  check(epoch >= 0 && epoch < std::int64_t{1} << 20 && position >= 0 && position < counts_.samples,
        "sample {} of {} in epoch {}", position, counts_.samples, epoch);
  // Keys: 0 shuffles the epoch's samples, 1 + group the pieces of a group; a second stream the order within a sample.
  const Random random(options_.seed, Purpose::document_order, 2 * options_.source);
  const Random inside(options_.seed, Purpose::document_order, 2 * options_.source + 1);
  const std::uint64_t key = static_cast<std::uint64_t>(epoch) << 40;
  const std::uint64_t shuffled =
      ItemPermutation(static_cast<std::uint64_t>(counts_.samples), random, key)(static_cast<std::uint64_t>(position));
  const std::uint64_t bins = bin_begin_.size() - 1;
  const std::uint64_t bin = shuffled % bins;
  const std::uint64_t window = shuffled / bins;
  const std::uint32_t first = bin_begin_[bin];
  const std::uint32_t count = bin_begin_[bin + 1] - first;
  const ItemPermutation order(count, inside, key | shuffled);
  pieces.clear();
  for (std::uint32_t at = 0; at < count; ++at) {
    const Slot slot = slots_[first + order(at)];
    const Group& group = groups_[slot.group];
    const ItemPermutation shuffle(group.strata * windows_, random, key | (slot.group + 1u));
    const std::uint64_t local = shuffle(slot.stratum * windows_ + window);
    if (local >= group.pieces) continue;
    const std::uint64_t piece = pieces_[group.first_piece + local];
    pieces.push_back({begin_of(piece), length_of(piece), slot.marked != 0});
  }
}

}  // namespace shoestring
