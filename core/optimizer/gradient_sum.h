// The gradients of a pass, added up over ranks in the canonical order (parallel/reduction.h).
//
// What is dense is added over the data axis. What is of experts lies on the ranks of an expert group together: it is
// added over the groups' replicas, each rank bringing one gradient for every rank of its group. Both come to the sum of
// the same reduction groups in the same order.
#pragma once

#include <optional>

#include "core/model/parameter.h"
#include "parallel/mesh.h"
#include "parallel/reduction.h"

namespace shoestring {

class GradientSum {
 public:
  /// Of `groups` reduction groups over the data axis of `mesh`. All must outlive it.
  GradientSum(ParameterStore& store, Mesh& mesh, int groups, Stream& stream);

  /// Adds what the store's gradients hold of this round; collective over the data axis, as are all. Each parameter may
  /// be overwritten afterwards; see CanonicalReducer::fold for the only round.
  void fold();
  /// Every gradient of the store becomes the total, that of the first source for experts.
  void gather();
  void reset();

 private:
  ParameterStore& store_;
  CanonicalReducer dense_;
  std::optional<CanonicalReducer> experts_;  ///< where the store has some
};

}  // namespace shoestring
