// Where a rank sits among the others of its run: who they are, its place in the layout, and what it shares with them.
#pragma once

#include <memory>
#include <vector>

#include "core/budget/head_start.h"
#include "core/budget/meter.h"
#include "core/training/launch.h"
#include "core/training/layout.h"
#include "core/training/watch.h"
#include "parallel/mesh.h"

namespace shoestring {

struct Seat {
  /// Collective. `all` and `recipe` must outlive it. Throws as checked_places and layout_of.
  Seat(Communicator& all, const Recipe& recipe, const Clock& clock);

  bool alone() const { return world.size() == 1; }
  /// Summed over all ranks. With it travels whether one of them was asked to leave: then all are. Collective.
  CategorySeconds summed(const CategorySeconds& own) const;

  Communicator& world;
  std::vector<RankPlace> places;  ///< of all ranks
  HeadStart head_start;           ///< of the other ranks, before this one
  Layout layout;
  std::unique_ptr<Communicator> rescue;  ///< of all ranks, for the way out of an error
  Watch watch;
  Mesh mesh;
};

/// Of the other ranks of `world`, before this process. Collective: ranks read their ages when all of them are there.
HeadStart head_start_of(Communicator& world, const Clock& clock);

}  // namespace shoestring
