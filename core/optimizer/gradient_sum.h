// The gradients of a pass, added up over ranks in the canonical order (parallel/reduction.h).
//
// What is dense is added over the data axis. What is of experts lies on the ranks of an expert group together: it is
// added over the groups' replicas, each rank bringing one gradient for every rank of its group. Both come to the sum of
// the same reduction groups in the same order.
//
// What the last micro-batch of a round is done with is summed up over ranks while it goes on with earlier layers.
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
  /// only. `parts` are parameters that a round is done with together, in the order in which it should be; what is in
  /// none waits for the end. All but `parts` must outlive it.
  GradientSum(ParameterStore& store, Mesh& mesh, int groups, Stream& stream, const ParameterShards* shards = nullptr,
              const std::vector<std::vector<Parameter*>>& parts = {});

  /// A round begins, whose sums will be in the store's gradients.
  void begin();
  /// Those of part `part` are what they will be in this round. Waits for nobody.
  void complete(int part);
  /// All are; adds what the store's gradients hold. Collective over the data axis, as are all. Each parameter may be
  /// overwritten afterwards; see CanonicalReducer::fold for the only round.
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
