#include "data/packing.h"

#include <algorithm>
#include <bit>
#include <limits>

#include "data/permutation.h"
#include "kernels/base/check.h"

namespace shoestring {
namespace {

constexpr int kLengthBits = 20;
constexpr std::uint64_t kLengthMask = (std::uint64_t{1} << kLengthBits) - 1;
constexpr std::uint64_t kMaxTokens = std::uint64_t{1} << (64 - kLengthBits);
constexpr std::uint32_t kMarked = 0x80000000u;  // a slot whose document goes through fill-in-the-middle
constexpr std::uint32_t kSentinels = 3;
constexpr std::int64_t kSlackShare = 2048;  // a group's slots hold at most 1/2048 more than its pieces

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

/// Pieces of all documents in source order: calls visit(begin, length, whole).
template <class Visit>
void for_each_piece(std::span<const DocumentEnds> documents, std::uint64_t capacity, const Visit& visit) {
  for (const DocumentEnds& shard : documents) {
    std::uint64_t begin = 0;
    for (const std::uint64_t end : shard.ends) {
      const bool whole = end - begin <= capacity;
      while (end - begin > capacity) {
        visit(shard.base + begin, static_cast<std::uint32_t>(capacity), false);
        begin += capacity;
      }
      visit(shard.base + begin, static_cast<std::uint32_t>(end - begin), whole);
      begin = end;
    }
  }
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
  form_groups();
  pack_slots();
}

// Counting sort by length, longest first; equal lengths stay in source order.
void PackingPlan::collect(std::span<const DocumentEnds> documents) {
  const auto capacity = static_cast<std::uint64_t>(options_.sequence) + 1;
  std::vector<std::uint64_t> place(capacity + 2, 0);  // place[k]: where pieces of length capacity - k go
  for_each_piece(documents, capacity, [&](std::uint64_t begin, std::uint32_t length, bool whole) {
    check(length > 0 && begin + length < kMaxTokens, "token {} of a source: 2^44 are the most", begin + length);
    place[capacity - length + 1] += 1;
    counts_.pieces += 1;
    counts_.tokens += length;
    counts_.split_documents += !whole && length < capacity ? 1 : 0;
  });
  for (const DocumentEnds& shard : documents) counts_.documents += static_cast<std::int64_t>(shard.ends.size());
  if (counts_.pieces == 0) fail(ExitCode::bad_data, "there is no document to train on");
  for (std::size_t at = 1; at < place.size(); ++at) place[at] += place[at - 1];
  pieces_.resize(static_cast<std::size_t>(counts_.pieces));
  for_each_piece(documents, capacity, [&](std::uint64_t begin, std::uint32_t length, bool) {
    pieces_[place[capacity - length]++] = begin << kLengthBits | length;
  });
}

}  // namespace shoestring
