// DualPipeV: DeepSeek's DualPipe (DeepSeek-V3 report, arXiv 2412.19437, section 3.2.1) cut in half, as in the public
// deepseek-ai/DualPipe. Rank r holds stages r and 2p - 1 - r; in the steady phase a forward of one chunk and a backward
// of the other form a cell, in which each hides the other's messages. The eight steps are the published ones.
#include "parallel/schedule_builders.h"

namespace shoestring {

std::string refuses_dualpipev(const ScheduleRequest& request) {
  if (request.stages_per_rank > 2) return "it has 2 stages per rank";
  if (request.microbatches < 2 * request.ranks) return "it needs at least 2 micro-batches per rank";
  return {};
}

Schedule build_dualpipev(const ScheduleRequest& request) {
  const int p = request.ranks;
  Schedule schedule{"dualpipev", 2 * p, request.microbatches, {}};
  for (int rank = 0; rank < p; ++rank) {
    RankList list({rank, 2 * p - 1 - rank}, request.microbatches);
    const int behind = p - rank - 1;                       // ranks after this one
    for (int i = 0; i < 2 * behind; ++i) list.forward(0);  // 1: F0
    for (int i = 0; i < rank + 1; ++i) {                   // 2: F0 F1
      list.forward(0);
      list.forward(1);
    }
    for (int i = 0; i < behind; ++i) {  // 3: B1 W F1
      list.backward_input(1);
      list.backward_weight();
      list.forward(1);
    }
    for (int i = 0; i < request.microbatches - 2 * p + rank + 1; ++i) {  // 4: F0 with B1, F1 with B0
      if (i == 0 && rank == p - 1) {  // here B1 needs the F1 just before: an overlap would only delay it
        list.forward(0);
        list.backward(1);
      } else {
        list.cell(0, 1);
      }
      list.cell(1, 0);
    }
    for (int i = 0; i < behind; ++i) {  // 5: B1, F1 with B0
      list.backward(1);
      list.cell(1, 0);
    }
    bool later_weights = false;
    for (int i = 0; i < rank + 1; ++i) {  // 6: B1 B0, in the second half without their W
      if (i == (rank + 1) / 2 && rank % 2 == 1) later_weights = true;
      later_weights ? list.backward_input(1) : list.backward(1);
      if (i == (rank + 1) / 2 && rank % 2 == 0) later_weights = true;
      later_weights ? list.backward_input(0) : list.backward(0);
    }
    for (int i = 0; i < behind; ++i) {  // 7: W B0
      list.backward_weight();
      list.backward_input(0);
    }
    list.flush_weights();  // 8: W
    schedule.ranks.push_back(list.take());
  }
  return schedule;
}

}  // namespace shoestring
