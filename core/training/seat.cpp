#include "core/training/seat.h"

#include <algorithm>
#include <array>

#include "core/training/signals.h"

namespace shoestring {

Seat::Seat(Communicator& all, const Recipe& recipe, const Clock& clock)
    : world(all),
      places(checked_places(all, recipe)),
      head_start(head_start_of(all, clock)),
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

HeadStart head_start_of(Communicator& world, const Clock& clock) {
  if (world.size() == 1) return {};
  world.barrier();
  const double own = clock.monotonic_seconds() - clock.process_start();
  std::vector<double> ages(static_cast<std::size_t>(world.size()));
  world.all_gather(view_of(ages.data(), DType::f64, {world.size()}), view_of(&own, DType::f64, {1}));
  HeadStart head_start;
  for (const double age : ages) {
    head_start.gpu_seconds += age - own;
    head_start.job_seconds = std::max(head_start.job_seconds, age - own);
  }
  return head_start;
}

}  // namespace shoestring
