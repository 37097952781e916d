// ZB-V (Qi et al. 2024, "Pipeline parallelism with controllable memory", arXiv 2405.15362): two chunks per rank folded
// into a V, stage r and stage 2p - 1 - r on rank r, so that the last stage sits beside the first and its backward
// starts at once. No bubble but filling where F = B = W, at 1F1B's memory. The counts of each phase are those of the
// authors' hand-made schedule.
#include "parallel/schedule_builders.h"

namespace shoestring {

std::string refuses_zb_v(const ScheduleRequest& request) {
  return request.stages_per_rank <= 2 ? "" : "it has 2 stages per rank";
}

Schedule build_zb_v(const ScheduleRequest& request) {
  const int p = request.ranks;
  Schedule schedule{"zb_v", 2 * p, request.microbatches, {}};
  for (int rank = 0; rank < p; ++rank) {
    RankList list({rank, 2 * p - 1 - rank}, request.microbatches);
    for (int i = 0; i < 2 * (p - rank) - 1; ++i) list.forward(0);
    for (int i = 0; i < rank; ++i) {
      list.forward(1);
      list.forward(0);
    }
    for (int i = 0; i < p - rank; ++i) {
      list.forward(1);
      list.backward(1);
    }
    // Steady: both chunks forward and backward in turn, until every forward has been written.
    while (list.forwards(1) < list.forwards(0) || list.forwards_left(0)) {
      if (list.forwards_left(0)) list.forward(0);
      list.backward(0);
      list.forward(1);
      list.backward(1);
    }
    // Draining: input gradients first, their weight gradients into the gaps.
    for (int i = 0; i < rank; ++i) {
      list.backward_input(0);
      list.backward_input(1);
    }
    for (int i = 0; i < p - rank; ++i) {
      list.backward_input(0);
      list.backward_weight();
    }
    while (list.backwards_left(0) || list.backwards_left(1)) {
      if (list.backwards_left(1)) list.backward_input(1);
      if (list.backwards_left(0)) list.backward_input(0);
      list.backward_weight();
    }
    list.flush_weights();
    schedule.ranks.push_back(list.take());
  }
  return schedule;
}

}  // namespace shoestring
