// Where a rank sits among the others of its run: who they are, its place in the layout, and what it shares with them.
#pragma once

#include <memory>
#include <vector>

#include "core/budget/meter.h"
#include "core/training/launch.h"
#include "core/training/layout.h"
#include "core/training/watch.h"
#include "parallel/mesh.h"

namespace shoestring {

struct Seat {
  /// Collective. Both must outlive it. Throws as checked_places and layout_of.
  Seat(Communicator& all, const Recipe& recipe);

  bool alone() const { return world.size() == 1; }
  /// Summed over all ranks. With it travels whether one of them was asked to leave: then all are. Collective.
  CategorySeconds summed(const CategorySeconds& own) const;

  Communicator& world;
  std::vector<RankPlace> places;  ///< of all ranks
  Layout layout;
  std::unique_ptr<Communicator> rescue;  ///< of all ranks, for the way out of an error
  Watch watch;
  Mesh mesh;
};

}  // namespace shoestring
