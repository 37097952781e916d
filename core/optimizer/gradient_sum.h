// The gradients of a pass, added up over ranks in the canonical order (parallel/reduction.h).
//
// What is dense is added over the data axis. What is of experts lies on the ranks of an expert group together: it is
// added over the groups' replicas, each rank bringing one gradient for every rank of its group. Both come to the sum of
// the same reduction groups in the same order.
#pragma once

#include <optional>

#include "core/model/parameter.h"
#include "core/optimizer/shards.h"
#include "parallel/mesh.h"
#include "parallel/reduction.h"

namespace shoestring {

class GradientSum {
 public:
  /// Of `groups` reduction groups over the data axis of `mesh`; with `shards` each rank gets its own part of the total
  /// only. All must outlive it.
  GradientSum(ParameterStore& store, Mesh& mesh, int groups, Stream& stream, const ParameterShards* shards = nullptr);

  /// Adds what the store's gradients hold of this round; collective over the data axis, as are all. Each parameter may
  /// be overwritten afterwards; see CanonicalReducer::fold for the only round.
  void fold();
  /// Every gradient of the store becomes the total, that of the first source for experts; with shards, this rank's
  /// parts do, and what the others hold is of no use.
  void gather();
  void reset();

 private:
  ParameterStore& store_;
  bool sharded_;
  CanonicalReducer dense_;
  std::optional<CanonicalReducer> experts_;  ///< where the store has some
};

}  // namespace shoestring
