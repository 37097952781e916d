// Where a rank stands: its place on the axes of the mesh, the stages of the model it holds, the schedule it obeys, and
// which share of every batch is its own. Built once, from the recipe and the launch.
//
// Only the data axis is admitted so far: a rank holds the whole model, and its share is its place on that axis.
#pragma once

#include <string>
#include <vector>

#include "core/recipe/recipe.h"
#include "parallel/mesh.h"

namespace shoestring {

struct Layout {
  MeshShape shape;
  MeshCoordinates at;
  ScheduleName schedule = ScheduleName::one_f_one_b;  ///< between the stages: with a single one it says nothing
  int stage_count = 1;                                ///< of the whole model
  std::vector<int> stages;                            ///< of this rank, in the order of the model

  bool operator==(const Layout&) const = default;
};

/// Throws Error(bad_recipe), the same on every rank, where `ranks` were launched and the recipe counts on others, or
/// where it asks for an axis that is not available.
Layout layout_of(const Recipe& recipe, int rank, int ranks);

/// Groups of the canonical reduction over the data axis: those of the run's first attempt (`first`, 0: this is it), or
/// the recipe's, or one for each place on the axis. Throws Error(bad_recipe) where the axis cannot share them evenly,
/// or a phase has fewer micro-batches a step.
int reduction_groups(const Recipe& recipe, const Layout& layout, int first);

/// "rank 1 of 2: data 1 of 2, the whole model"; "rank 5 of 8: data 1 of 4, stage 1 of 2 (zb_v)".
std::string to_string(const Layout& layout);

}  // namespace shoestring
