#include "parallel/reduction.h"

#include <algorithm>

#include "kernels/base/copy.h"
#include "kernels/base/workers.h"
#include "kernels/reduce.h"

namespace shoestring {
namespace {

constexpr std::int64_t kPiece = std::int64_t{1} << 18;  // elements a peer sends at a time: bounds the staging buffer
constexpr std::int64_t kGrain = 16384;

/// Adds one round's partial gradients to `total` in rank order; `first` overwrites it.
void add_ranks_there(TensorView total, const std::vector<ConstTensorView>& parts, bool first, Stream& stream) {
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
void add_ranks(Element* total, const std::vector<const Element*>& parts, std::int64_t count, bool first,
               Workers& workers) {
  workers.split(count, kGrain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      // `total` may be one of the parts: all are read before it is written.
      Element sum = first ? parts[0][i] : total[i] + parts[0][i];
      for (std::size_t r = 1; r < parts.size(); ++r) sum += parts[r][i];
      total[i] = sum;
    }
  });
}

template <class Element>
double block_square_sum(const Element* values, std::int64_t count) {
  double sum = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    const double value = static_cast<double>(values[i]);
    sum += value * value;
  }
  return sum;
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

CanonicalReducer::CanonicalReducer(Communicator& communicator, std::int64_t elements, int rounds, DType dtype,
                                   Stream& stream, int partials)
    : CanonicalReducer(communicator, ShardLayout(elements, communicator.size()), rounds, dtype, stream, partials) {}

CanonicalReducer::CanonicalReducer(Communicator& communicator, ShardLayout layout, int rounds, DType dtype,
                                   Stream& stream, int partials)
    : communicator_(communicator),
      stream_(stream),
      layout_(std::move(layout)),
      rounds_(rounds),
      partials_(partials),
      dtype_(dtype) {
  check(layout_.ranks() == communicator.size(), "ranges of {} ranks on {}", layout_.ranks(), communicator.size());
  check(rounds > 0 && partials > 0, "a reduction of {} gradients in {} rounds", partials, rounds);
  check(dtype == DType::f32 || dtype == DType::f64, "gradients are added in f32 or f64, not {}", name(dtype));
  const Device device = stream.device();
  if (rounds > 1) accumulator_ = Tensor(dtype, {layout_.range(communicator.rank()).elements()}, device);
  piece_ = std::min(std::max(kShardBlock, kPiece / partials), layout_.widest());
  if (communicator.size() > 1) staging_ = Tensor(dtype, {communicator.size(), partials, piece_}, device);
}

void CanonicalReducer::fold(TensorView group_gradients) {
  check(folded_ < rounds_, "round {} of a reduction in {} rounds; reset between global batches", folded_ + 1, rounds_);
  check(group_gradients.dtype == dtype_ && group_gradients.elements() == partials_ * layout_.elements() &&
            group_gradients.contiguous(),
        "group gradients of {} for {} times {} elements of {}", group_gradients.to_string(), partials_,
        layout_.elements(), name(dtype_));
  const TensorView flat = group_gradients.reshaped({partials_, layout_.elements()});
  if (dtype_ == DType::f32) {
    fold_elements<float>(flat);
  } else {
    fold_elements<double>(flat);
  }
  ++folded_;
}

// The ranges are exchanged piece by piece: at most one piece per peer is staged.
template <class Element>
void CanonicalReducer::fold_elements(TensorView group_gradients) {
  const int ranks = communicator_.size();
  const int me = communicator_.rank();
  const ShardRange mine = layout_.range(me);
  const auto part = [&](int partial, std::int64_t begin, std::int64_t count) {
    return group_gradients.slice(0, partial, 1).reshaped({layout_.elements()}).slice(0, begin, count);
  };
  const auto staged = [&](int rank, int partial) {
    return staging_.as<Element>() + (rank * partials_ + partial) * piece_;
  };
  shard_ = rounds_ == 1 ? part(0, mine.begin, mine.elements()) : accumulator_.view();
  for (std::int64_t offset = 0; offset < layout_.widest(); offset += piece_) {
    const auto count_of = [&](const ShardRange& range) {
      return std::clamp<std::int64_t>(range.elements() - offset, 0, piece_);
    };
    const std::int64_t count = count_of(mine);
    if (ranks > 1) {
      communicator_.group_begin();
      for (int peer = 0; peer < ranks; ++peer) {
        if (peer == me) continue;
        const ShardRange theirs = layout_.range(peer);
        const std::int64_t their_count = count_of(theirs);
        for (int p = 0; p < partials_; ++p) {
          if (their_count > 0) communicator_.send(part(p, theirs.begin + offset, their_count), peer);
          if (count > 0) communicator_.recv(view_of(staged(peer, p), dtype_, {count}, stream_.device()), peer);
        }
      }
      communicator_.group_end();
    }
    if (count == 0 || (ranks * partials_ == 1 && rounds_ == 1)) continue;  // one group: its gradient is the total
    if (stream_.device().kind != DeviceKind::cpu) {
      std::vector<ConstTensorView> there;
      for (int r = 0; r < ranks; ++r) {
        for (int p = 0; p < partials_; ++p) {
          there.push_back(r == me ? part(p, mine.begin + offset, count)
                                  : view_of(staged(r, p), dtype_, {count}, stream_.device()));
        }
      }
      add_ranks_there(shard_.slice(0, offset, count), there, folded_ == 0, stream_);
      continue;
    }
    std::vector<const Element*> parts;
    for (int r = 0; r < ranks; ++r) {
      for (int p = 0; p < partials_; ++p) {
        parts.push_back(r == me ? part(p, mine.begin + offset, count).template as<Element>() : staged(r, p));
      }
    }
    add_ranks(shard_.as<Element>() + offset, parts, count, folded_ == 0, stream_.workers());
  }
}

TensorView CanonicalReducer::owned_shard() {
  check(folded_ == rounds_, "the total after round {} of {}", folded_, rounds_);
  return shard_;
}

void CanonicalReducer::place(TensorView full) {
  const TensorView shard = owned_shard();
  check(full.dtype == dtype_ && full.elements() == layout_.elements() && full.contiguous(), "the total into {}",
        full.to_string());
  const ShardRange mine = layout_.range(communicator_.rank());
  const TensorView target = full.reshaped({layout_.elements()}).slice(0, mine.begin, mine.elements());
  if (target.data != shard.data && mine.elements() > 0) {
    copy(target, shard, stream_);
  }
}

void CanonicalReducer::gather(TensorView full) {
  place(full);
  all_gather_shards(communicator_, layout_, full);
}

void CanonicalReducer::reset() {
  folded_ = 0;
  shard_ = {};
}

ScalarReducer::ScalarReducer(Communicator& communicator, int count)
    : communicator_(communicator), totals_(static_cast<std::size_t>(count), 0.0) {}

void ScalarReducer::fold(std::span<const double> group_values) {
  check(group_values.size() == totals_.size(), "{} values into {} totals", group_values.size(), totals_.size());
  const auto count = static_cast<std::int64_t>(totals_.size());
  const auto ranks = static_cast<std::size_t>(communicator_.size());
  std::vector<double> all(totals_.size() * ranks);
  communicator_.all_gather(view_of(all.data(), DType::f64, {static_cast<std::int64_t>(all.size())}),
                           view_of(group_values.data(), DType::f64, {count}));
  for (std::size_t r = 0; r < ranks; ++r) {
    for (std::size_t i = 0; i < totals_.size(); ++i) {
      const double value = all[r * totals_.size() + i];
      totals_[i] = empty_ ? value : totals_[i] + value;
    }
    empty_ = false;
  }
}

void ScalarReducer::reset() {
  empty_ = true;
  std::fill(totals_.begin(), totals_.end(), 0.0);
}

double ordered_square_sum(Communicator& communicator, const ShardLayout& layout, ConstTensorView owned_shard,
                          Stream& stream) {
  const ShardRange mine = layout.range(communicator.rank());
  check(owned_shard.elements() == mine.elements() && owned_shard.contiguous(), "square sum of {} for a shard of {}",
        owned_shard.to_string(), mine.elements());
  const std::int64_t blocks_per_rank = layout.widest() / kShardBlock;
  std::vector<double> sums(static_cast<std::size_t>(blocks_per_rank), 0.0);
  stream.workers().split(blocks_per_rank, 8, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t block = first; block < last; ++block) {
      const std::int64_t begin = std::min(block * kShardBlock, mine.elements());
      const std::int64_t count = std::min(kShardBlock, mine.elements() - begin);
      sums[static_cast<std::size_t>(block)] = owned_shard.dtype == DType::f64
                                                  ? block_square_sum(owned_shard.as<double>() + begin, count)
                                                  : block_square_sum(owned_shard.as<float>() + begin, count);
    }
  });
  std::vector<double> all(sums.size() * static_cast<std::size_t>(communicator.size()));
  communicator.all_gather(view_of(all.data(), DType::f64, {static_cast<std::int64_t>(all.size())}),
                          view_of(sums.data(), DType::f64, {blocks_per_rank}));
  double total = 0;
  for (const double sum : all) total += sum;  // blocks past the end are exact zeros
  return total;
}

}  // namespace shoestring
