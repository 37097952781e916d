#include "parallel/reduction.h"

#include <algorithm>
#include <deque>

#include "kernels/base/copy.h"
#include "kernels/base/workers.h"
#include "kernels/reduce.h"

namespace shoestring {
namespace {

constexpr int kSlots = 4;                                // pieces under way
constexpr std::int64_t kStaged = std::int64_t{1} << 18;  // elements from a peer in all slots: bounds the staging buffer
constexpr std::int64_t kGrain = 16384;

int slot_of(std::size_t piece) { return static_cast<int>(piece % kSlots); }

/// What of `elements` no bucket has.
Bucket outside(const std::vector<Bucket>& buckets, std::int64_t elements) {
  Bucket in;
  for (const Bucket& bucket : buckets) in.insert(in.end(), bucket.begin(), bucket.end());
  std::ranges::sort(in, {}, &ElementRange::begin);
  in.push_back({elements, elements});
  Bucket rest;
  std::int64_t end = 0;
  for (const ElementRange& range : in) {
    check(range.begin >= end && range.end >= range.begin && range.end <= elements,
          "a bucket has elements {} to {}, others those before {}, of {}", range.begin, range.end, end, elements);
    if (range.begin > end) rest.push_back({end, range.begin});
    end = range.end;
  }
  return rest;
}

/// Adds one round's partial gradients to `total` in rank order; `first` overwrites it.
void add_ranks_there(TensorView total, const std::vector<TensorView>& parts, bool first, Stream& stream) {
  for (std::size_t r = 0; r < parts.size(); ++r) {
    check(r == 0 || total.data != parts[r].data, "gradients of several ranks in one round on {} need room of their own",
          to_string(total.device));
    if (r > 0 || !first) {
      axpy(total, 1, parts[r], stream);
    } else if (total.data != parts[r].data) {
      copy(total, parts[r], stream);
    }
  }
}

/// The same in one pass over memory.
template <class Element>
void add_ranks(TensorView total, const std::vector<TensorView>& parts, bool first, Workers& workers) {
  std::vector<const Element*> from;
  for (const TensorView& part : parts) from.push_back(part.as<Element>());
  auto* const to = total.as<Element>();
  workers.split(total.elements(), kGrain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      // `total` may be one of the parts: all are read before it is written.
      Element sum = first ? from[0][i] : to[i] + from[0][i];
      for (std::size_t r = 1; r < from.size(); ++r) sum += from[r][i];
      to[i] = sum;
    }
  });
}

}  // namespace

GroupRange reduction_group(std::int64_t microbatches, int groups, int group) {
  check(groups > 0 && group >= 0 && group < groups && microbatches >= groups, "group {} of {} over {} micro-batches",
        group, groups, microbatches);
  const std::int64_t length = microbatches / groups;
  const std::int64_t longer = microbatches % groups;
  const std::int64_t begin = group * length + std::min<std::int64_t>(group, longer);
  return {begin, begin + length + (group < longer ? 1 : 0)};
}

CanonicalReducer::CanonicalReducer(Communicator& communicator, ShardLayout layout, int rounds, DType dtype,
                                   Stream& stream, int partials, const std::vector<Bucket>& buckets)
    : communicator_(communicator),
      stream_(stream),
      layout_(std::move(layout)),
      rounds_(rounds),
      partials_(partials),
      dtype_(dtype),
      under_way_(kSlots) {
  check(layout_.ranks() == communicator.size(), "ranges of {} ranks on {}", layout_.ranks(), communicator.size());
  check(rounds > 0 && partials > 0, "a reduction of {} gradients in {} rounds", partials, rounds);
  check(dtype == DType::f32 || dtype == DType::f64, "gradients are added in f32 or f64, not {}", name(dtype));
  std::int64_t widest = 1;
  for (int rank = 0; rank < layout_.ranks(); ++rank) widest = std::max(widest, layout_.elements_of(rank));
  piece_elements_ = widest;
  if (communicator.size() > 1) piece_elements_ = std::min(widest, std::max(kShardBlock, kStaged / kSlots / partials));
  for (const Bucket& bucket : buckets) {
    cut(bucket);
    ends_.push_back(pieces_.size());
  }
  cut(outside(buckets, layout_.elements()));
  ends_.push_back(pieces_.size());
  completed_.assign(ends_.size(), 0);
  const Device device = stream.device();
  if (rounds > 1) accumulator_ = Tensor(dtype, {layout_.elements_of(communicator.rank())}, device);
  if (communicator.size() > 1) {
    staging_ = Tensor(dtype, {kSlots, communicator.size(), partials, piece_elements_}, device);
  }
}

// A piece takes the next elements of every owner, so that all of them have something to add.
void CanonicalReducer::cut(const Bucket& bucket) {
  std::vector<std::deque<ShardRange>> left(static_cast<std::size_t>(layout_.ranks()));
  for (const ElementRange& range : bucket) {
    for (const ShardRange& owned : layout_.ranges()) {
      const ShardRange both{std::max(range.begin, owned.begin), std::min(range.end, owned.end), owned.owner};
      if (both.begin < both.end) left[static_cast<std::size_t>(both.owner)].push_back(both);
    }
  }
  const auto own = static_cast<std::size_t>(communicator_.rank());
  while (std::ranges::any_of(left, [](const auto& ranges) { return !ranges.empty(); })) {
    Piece piece;
    piece.own_begin = own_elements_;
    for (std::size_t owner = 0; owner < left.size(); ++owner) {
      for (std::int64_t room = piece_elements_; room > 0 && !left[owner].empty();) {
        ShardRange& next = left[owner].front();
        const std::int64_t taken = std::min(room, next.elements());
        piece.ranges.push_back({next.begin, next.begin + taken, next.owner});
        if (owner == own) own_elements_ += taken;
        room -= taken;
        next.begin += taken;
        if (next.elements() == 0) left[owner].pop_front();
      }
    }
    pieces_.push_back(std::move(piece));
  }
}

void CanonicalReducer::begin(TensorView group_gradients) {
  check(folded_ < rounds_, "round {} of a reduction in {} rounds; reset between global batches", folded_ + 1, rounds_);
  check(group_gradients.dtype == dtype_ && group_gradients.elements() == partials_ * layout_.elements() &&
            group_gradients.contiguous(),
        "group gradients of {} for {} times {} elements of {}", group_gradients, partials_, layout_.elements(),
        name(dtype_));
  gradients_ = group_gradients.reshaped({partials_, layout_.elements()});
  completed_.assign(completed_.size(), 0);
  posted_ = added_ = 0;
}

void CanonicalReducer::complete(int bucket) {
  check(bucket >= 0 && bucket + 1 < static_cast<int>(completed_.size()), "bucket {} of {}", bucket,
        completed_.size() - 1);
  completed_[static_cast<std::size_t>(bucket)] = 1;
  advance(false);
}

void CanonicalReducer::fold() {
  completed_.assign(completed_.size(), 1);
  advance(true);
  ++folded_;
}

// Every rank posts the pieces in the same order, whenever it can, and looks at the oldest: the one with the lowest
// number of all that are under way is under way everywhere sooner or later, so none is waited for in vain.
void CanonicalReducer::advance(bool wait) {
  const auto open = std::find(completed_.begin(), completed_.end(), 0) - completed_.begin();
  const std::size_t ready = open == 0 ? 0 : ends_[static_cast<std::size_t>(open - 1)];
  for (;;) {
    for (; posted_ < ready && posted_ - added_ < std::size_t{kSlots}; ++posted_)
      post(pieces_[posted_], slot_of(posted_));
    if (added_ == posted_) return;
    Pending& oldest = under_way_[static_cast<std::size_t>(slot_of(added_))];
    if (!wait && !oldest.finished()) return;
    oldest.wait();
    add(pieces_[added_], slot_of(added_));
    ++added_;
  }
}

TensorView CanonicalReducer::part(int partial, const ShardRange& range) const {
  return gradients_.slice(0, partial, 1).reshaped({layout_.elements()}).slice(0, range.begin, range.elements());
}

TensorView CanonicalReducer::staged(int slot, int rank, int partial, std::int64_t begin, std::int64_t count) {
  const std::int64_t row = (std::int64_t{slot} * communicator_.size() + rank) * partials_ + partial;
  return staging_.view().reshaped({staging_.shape().elements()}).slice(0, row * piece_elements_ + begin, count);
}

/// Calls visit(range, begin) for what this rank owns of it, which begins at element `begin` of all that it owns of it.
template <class Visit>
void CanonicalReducer::each_own(const Piece& piece, const Visit& visit) const {
  std::int64_t begin = 0;
  for (const ShardRange& range : piece.ranges) {
    if (range.owner != communicator_.rank()) continue;
    visit(range, begin);
    begin += range.elements();
  }
}

void CanonicalReducer::post(const Piece& piece, int slot) {
  if (communicator_.size() == 1) return;
  communicator_.group_begin();
  for (const ShardRange& range : piece.ranges) {
    if (range.owner == communicator_.rank()) continue;
    for (int p = 0; p < partials_; ++p) communicator_.send(part(p, range), range.owner);
  }
  each_own(piece, [&](const ShardRange& range, std::int64_t begin) {
    for (int peer = 0; peer < communicator_.size(); ++peer) {
      if (peer == communicator_.rank()) continue;
      for (int p = 0; p < partials_; ++p) communicator_.recv(staged(slot, peer, p, begin, range.elements()), peer);
    }
  });
  under_way_[static_cast<std::size_t>(slot)] = communicator_.group_post();
}

/// Where the total of a range that this rank owns stands.
TensorView CanonicalReducer::total_of(const ShardRange& range, std::int64_t own_begin) {
  return rounds_ == 1 ? part(0, range) : accumulator_.view().slice(0, own_begin, range.elements());
}

void CanonicalReducer::add(const Piece& piece, int slot) {
  if (communicator_.size() * partials_ * rounds_ == 1) return;  // one group: its gradient is the total
  each_own(piece, [&](const ShardRange& range, std::int64_t begin) {
    std::vector<TensorView> parts;
    for (int r = 0; r < communicator_.size(); ++r) {
      for (int p = 0; p < partials_; ++p) {
        parts.push_back(r == communicator_.rank() ? part(p, range) : staged(slot, r, p, begin, range.elements()));
      }
    }
    const TensorView total = total_of(range, piece.own_begin + begin);
    if (stream_.device().kind != DeviceKind::cpu) {
      add_ranks_there(total, parts, folded_ == 0, stream_);
    } else if (dtype_ == DType::f32) {
      add_ranks<float>(total, parts, folded_ == 0, stream_.workers());
    } else {
      add_ranks<double>(total, parts, folded_ == 0, stream_.workers());
    }
  });
}

void CanonicalReducer::place(TensorView full) {
  check(folded_ == rounds_, "the total after round {} of {}", folded_, rounds_);
  check(full.dtype == dtype_ && full.elements() == layout_.elements() && full.contiguous(), "the total into {}", full);
  const TensorView flat = full.reshaped({layout_.elements()});
  for (const Piece& piece : pieces_) {
    each_own(piece, [&](const ShardRange& range, std::int64_t begin) {
      const TensorView target = flat.slice(0, range.begin, range.elements());
      const TensorView total = total_of(range, piece.own_begin + begin);
      if (target.data != total.data) copy(target, total, stream_);
    });
  }
}

void CanonicalReducer::gather(TensorView full) {
  place(full);
  all_gather_shards(communicator_, layout_, full);
}

void CanonicalReducer::reset() { folded_ = 0; }

}  // namespace shoestring
