// ZB-H1 (Qi et al. 2023, "Zero bubble pipeline parallelism", arXiv 2401.10241, section 2.1): 1F1B's order of F and B,
// with W put off to fill what 1F1B leaves idle at the end. Rank r keeps r weight gradients waiting, so that all ranks
// hold p activations as 1F1B's first one does. Bubble (p - 1)(F + B - W).
#include "parallel/schedule_builders.h"

namespace shoestring {

std::string refuses_zb_h1(const ScheduleRequest& request) {
  return request.stages_per_rank == 1 ? "" : "one stage per rank; two are 'zb_v'";
}

Schedule build_zb_h1(const ScheduleRequest& request) {
  Schedule schedule{"zb_h1", request.ranks, request.microbatches, {}};
  for (int rank = 0; rank < request.ranks; ++rank) {
    RankList list({rank}, request.microbatches);
    for (int ahead = 0; ahead < request.ranks - rank - 1; ++ahead) list.forward(0);
    while (list.forwards_left(0)) {
      list.forward(0);
      list.backward_input(0);
      if (list.weights_waiting() > rank) list.backward_weight();
    }
    while (list.backwards_left(0)) {  // where 1F1B waits for the next B, a W fits
      list.backward_input(0);
      list.backward_weight();
    }
    list.flush_weights();
    schedule.ranks.push_back(list.take());
  }
  return schedule;
}

}  // namespace shoestring
