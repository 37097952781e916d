// One forward, one backward (PipeDream-flush; Narayanan et al. 2021, arXiv 2104.04473, section 2.2.1): rank r runs
// p - r - 1 forwards ahead, then alternates. Bubble (p - 1)(F + B + W), at most p micro-batches in flight.
#include <algorithm>

#include "parallel/schedule_builders.h"

namespace shoestring {

std::string refuses_1f1b(const ScheduleRequest& request) {
  return request.stages_per_rank == 1 ? "" : "one stage per rank; several are 'interleaved'";
}

Schedule build_1f1b(const ScheduleRequest& request) {
  Schedule schedule{"1f1b", request.ranks, request.microbatches, {}};
  for (int rank = 0; rank < request.ranks; ++rank) {
    RankList list({rank}, request.microbatches);
    for (int ahead = 0; ahead < request.ranks - rank - 1; ++ahead) list.forward(0);
    while (list.backwards_left(0)) {
      list.forward(0);
      list.backward(0);
    }
    schedule.ranks.push_back(list.take());
  }
  return schedule;
}

}  // namespace shoestring
