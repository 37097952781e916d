// Canonical reduction: gradients summed in one order that does not depend on the number of ranks.
//
// A global batch is cut into G reduction groups (a recipe key), each a contiguous run of micro-batches. Group g's
// gradient is accumulated in micro-batch order by its rank; the total is the left fold ((g0 + g1) + g2) + ...,
// elementwise. R ranks (R divides G) own groups strided: rank r has groups r, r + R, r + 2R, ... After each round j
// every rank holds the gradient of one of the groups jR .. jR + R - 1; these are exchanged by element ranges (each
// element has one owner, see ShardLayout), and the owner adds them in rank order. So memory stays at one gradient, one
// shard and a small staging buffer, and the bits equal those of one rank with the same G.
//
// Weights of experts lie on the ranks of an expert group together, so a rank's gradient of them is of all groups that
// these compute in a round: one partial gradient for each, handed in side by side, in the order of the groups. The
// fold runs over the replicas of the expert group then, and each has the place of its groups in it.
//
// A round need not wait for its whole gradient. Elements that a backward pass is done with together are a bucket; once
// it and those before it are complete their messages start, and are looked after whenever another one is, while the
// pass goes on. Which element is added to which, and in what order, is the same: no bit depends on when a message
// started.
#pragma once

#include <cstdint>
#include <vector>

#include "parallel/communicator.h"
#include "parallel/sharding.h"

namespace shoestring {

/// The micro-batches of one reduction group: [begin, end) of the global batch.
struct GroupRange {
  std::int64_t begin = 0;
  std::int64_t end = 0;
};

/// Cuts `microbatches` into `groups` contiguous runs; the first ones are longer by one where it does not divide.
GroupRange reduction_group(std::int64_t microbatches, int groups, int group);
/// The group that `rank` computes in `round`.
inline int group_of(int round, int rank, int ranks) { return round * ranks + rank; }

/// Elements [begin, end) of a flat buffer.
struct ElementRange {
  std::int64_t begin = 0;
  std::int64_t end = 0;
};
/// What is complete at the same time; may be empty.
using Bucket = std::vector<ElementRange>;

class CanonicalReducer {
 public:
  /// `rounds` = G / (R * partials). `dtype` is f32 or f64. `stream` does the additions and must outlive the reducer, as
  /// must the communicator. `buckets`, the same on all ranks, share no element, and come in the order in which their
  /// messages are to start. With one round no accumulator is allocated.
  CanonicalReducer(Communicator& communicator, ShardLayout layout, int rounds, DType dtype, Stream& stream,
                   int partials = 1, const std::vector<Bucket>& buckets = {});
  /// With ranges that are dealt out.
  CanonicalReducer(Communicator& communicator, std::int64_t elements, int rounds, DType dtype, Stream& stream,
                   int partials = 1)
      : CanonicalReducer(communicator, ShardLayout(elements, communicator.size()), rounds, dtype, stream, partials) {}

  const ShardLayout& layout() const { return layout_; }
  int rounds() const { return rounds_; }

  /// A round begins, whose gradients will be in `group_gradients`, flat: [elements], or [partials, elements].
  void begin(TensorView group_gradients);
  /// Bucket `bucket` of every partial is what it will be in this round; in any order. Waits for nobody.
  void complete(int bucket);
  /// So is everything; adds this round's group gradients of all ranks. Collective, as is the round. The caller may
  /// overwrite them afterwards, except with one round: then the total of what this rank owns is written into its place
  /// in the first, and must stay there until `place` or `gather`.
  void fold();
  /// The whole round at once.
  void fold(TensorView group_gradients) {
    begin(group_gradients);
    fold();
  }
  /// After the last round: writes the total of what this rank owns into its place in `full` [elements], which may be
  /// the group gradient.
  void place(TensorView full);
  /// The same, and that of all others: the whole total on every rank; collective.
  void gather(TensorView full);
  /// Makes ready for the next global batch.
  void reset();

 private:
  /// Ranges of elements whose messages are one group.
  struct Piece {
    std::vector<ShardRange> ranges;
    std::int64_t own_begin = 0;  ///< of this rank's elements in the accumulator, in the order of its ranges
  };
  void cut(const Bucket& bucket);
  void advance(bool wait);
  void post(const Piece& piece, int slot);
  void add(const Piece& piece, int slot);
  TensorView part(int partial, const ShardRange& range) const;
  TensorView staged(int slot, int rank, int partial, std::int64_t begin, std::int64_t count);
  TensorView total_of(const ShardRange& range, std::int64_t own_begin);
  template <class Visit>
  void each_own(const Piece& piece, const Visit& visit) const;

  Communicator& communicator_;
  Stream& stream_;
  ShardLayout layout_;
  int rounds_;
  int partials_;
  DType dtype_;
  std::int64_t piece_elements_ = 0;  ///< of one rank in a piece, at most
  std::int64_t own_elements_ = 0;    ///< of this rank in all pieces
  std::vector<Piece> pieces_;
  std::vector<std::size_t> ends_;  ///< of each bucket's pieces; what is in none comes last
  Tensor accumulator_;             ///< what this rank owns, with more than one round
  Tensor staging_;                 ///< [slots, ranks, partials, piece_elements_], with more than one rank

  int folded_ = 0;
  TensorView gradients_;         ///< of the round, or, after one that was the only one, of that
  std::vector<char> completed_;  ///< of each bucket
  std::size_t posted_ = 0;       ///< pieces
  std::size_t added_ = 0;
  std::vector<Pending> under_way_;  ///< of each slot; destroyed before the memory they write to
};

}  // namespace shoestring
