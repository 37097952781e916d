// Which rank moves which weights, where ranks that hold the same ones share the optimizer's state (ZeRO-1: Rajbhandari
// et al., arXiv 1910.02054, section 5.1).
//
// The dense region of a store is dealt out to the ranks of the data axis, that of experts to its replicas, in units
// that are never parted: the one with the most state first, each to the rank that has the least so far. A unit is a
// piece of at most kPieceElements of a disk tensor, so that any piece has its whole sum of squares on one rank
// (clip.h); where Muon moves it, a whole matrix, since it is orthogonalised as one. AdamW keeps two moments, Muon one.
#pragma once

#include <cstdint>
#include <vector>

#include "core/model/parameter.h"
#include "core/recipe/recipe.h"
#include "parallel/mesh.h"
#include "parallel/sharding.h"

namespace shoestring {

/// Elements of a disk tensor in one piece, at most.
inline constexpr std::int64_t kPieceElements = std::int64_t{1} << 20;

/// Elements [begin, begin + elements) of a parameter's flat value.
struct ParameterPart {
  Parameter* parameter = nullptr;
  std::int64_t begin = 0;
  std::int64_t elements = 0;
};

/// All of each.
std::vector<ParameterPart> whole_parts(const std::vector<Parameter*>& parameters);

class ParameterShards {
 public:
  ParameterShards(const StorePlan& plan, OptimizerName optimizer, const MeshShape& shape, const MeshCoordinates& at);

  /// Over the data axis, from the region's beginning on.
  const ShardLayout& dense() const { return dense_; }
  /// Over the replicas.
  const ShardLayout& experts() const { return experts_; }

  /// What this rank moves, in the order of the store; nothing of statistics.
  const std::vector<ParameterPart>& parts() const { return parts_; }
  /// Whether elements [begin, begin + elements) of a parameter's flat value are among them.
  bool owns(const Parameter& parameter, std::int64_t begin, std::int64_t elements = 1) const;

 private:
  ShardLayout dense_;
  ShardLayout experts_;
  std::vector<ParameterPart> parts_;
};

}  // namespace shoestring
