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
#pragma once

#include <cstdint>
#include <span>
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

class CanonicalReducer {
 public:
  /// `rounds` = G / (R * partials). `dtype` is f32 or f64. `stream` does the additions and must outlive the reducer, as
  /// must the communicator. With one round no accumulator is allocated.
  CanonicalReducer(Communicator& communicator, std::int64_t elements, int rounds, DType dtype, Stream& stream,
                   int partials = 1);
  /// The same with ranges as `layout` says.
  CanonicalReducer(Communicator& communicator, ShardLayout layout, int rounds, DType dtype, Stream& stream,
                   int partials = 1);

  const ShardLayout& layout() const { return layout_; }
  int rounds() const { return rounds_; }

  /// Adds this round's group gradients of all ranks; collective. `group_gradients`, flat: [elements], or [partials,
  /// elements]. The caller may overwrite them afterwards, except with one round: then the total is written into this
  /// rank's range of the first, which `owned_shard` borrows.
  void fold(TensorView group_gradients);
  /// The total of this rank's range [layout().range(rank)]; valid after the last round's fold and until the next fold.
  TensorView owned_shard();
  /// Writes the total of this rank's range into its place in `full` [elements], which may be the group gradient.
  void place(TensorView full);
  /// The same, and those of all others: the whole total on every rank; collective.
  void gather(TensorView full);
  /// Makes ready for the next global batch.
  void reset();

 private:
  template <class Element>
  void fold_elements(TensorView group_gradients);

  Communicator& communicator_;
  Stream& stream_;
  ShardLayout layout_;
  int rounds_;
  int partials_;
  int folded_ = 0;
  DType dtype_;
  Tensor accumulator_;  // [own range], with more than one round
  Tensor staging_;      // [ranks, partials, piece], with more than one rank
  std::int64_t piece_ = 0;
  TensorView shard_;
};

/// The same fold for a few doubles (loss sums, token counts): every rank gets the same bits as one rank would.
class ScalarReducer {
 public:
  ScalarReducer(Communicator& communicator, int count);
  /// One group's values on every rank; collective.
  void fold(std::span<const double> group_values);
  std::span<const double> totals() const { return totals_; }
  void reset();

 private:
  Communicator& communicator_;
  bool empty_ = true;
  std::vector<double> totals_;
};

/// Sum of squares of a flat buffer of which this rank holds its range: per block of kShardBlock in double, blocks added
/// in order. The same bits on every rank and for every number of ranks; collective.
double ordered_square_sum(Communicator& communicator, const ShardLayout& layout, ConstTensorView owned_shard,
                          Stream& stream);

}  // namespace shoestring
