#include "core/training/seat.h"

#include <algorithm>
#include <array>

#include "core/training/signals.h"

namespace shoestring {

Seat::Seat(Communicator& all, const Recipe& recipe)
    : world(all),
      places(checked_places(all, recipe)),
      layout(layout_of(recipe, all.rank(), all.size())),
      rescue(all.split(0, all.rank(), "rescue")),
      watch(all, recipe),
      mesh(all, layout.shape) {}

CategorySeconds Seat::summed(const CategorySeconds& own) const {
  std::array<double, kCategories + 1> sums{};
  std::copy(own.seconds.begin(), own.seconds.end(), sums.begin());
  sums.back() = stop_requested() ? 1 : 0;
  world.all_reduce(view_of(sums.data(), DType::f64, {kCategories + 1}));
  if (sums.back() > 0) request_stop(true);
  CategorySeconds all;
  std::copy_n(sums.begin(), kCategories, all.seconds.begin());
  return all;
}

}  // namespace shoestring
