// Interleaved 1F1B (Narayanan et al. 2021, arXiv 2104.04473, section 2.2.2): each rank holds v chunks, stage s lives on
// rank s mod p, and micro-batches go round in groups of p. The bubble shrinks by v, the messages grow by v.
#include <algorithm>

#include "kernels/base/check.h"
#include "parallel/schedule_builders.h"

namespace shoestring {

std::string refuses_interleaved(const ScheduleRequest& request) {
  if (request.stages_per_rank < 2) return "it needs at least 2 stages per rank";
  if (request.microbatches % request.ranks != 0) return "micro-batches must be a multiple of the ranks";
  return {};
}

Schedule build_interleaved(const ScheduleRequest& request) {
  const int p = request.ranks;
  const int v = request.stages_per_rank;
  Schedule schedule{"interleaved", p * v, request.microbatches, {}};
  const int total = request.microbatches * v;  // forwards, and backwards, of one rank
  for (int rank = 0; rank < p; ++rank) {
    std::vector<int> stages;
    for (int chunk = 0; chunk < v; ++chunk) stages.push_back(chunk * p + rank);
    RankList list(stages, request.microbatches);
    const auto chunk_of = [&](int step) { return static_cast<std::size_t>(step % (p * v) / p); };
    const auto forward = [&](int step) { list.forward(chunk_of(step)); };
    const auto backward = [&](int step) { list.backward(static_cast<std::size_t>(v) - 1 - chunk_of(step)); };
    const int ahead = std::min(total, (p - rank - 1) * 2 + (v - 1) * p);
    for (int step = 0; step < ahead; ++step) forward(step);
    for (int step = ahead; step < total; ++step) {
      forward(step);
      backward(step - ahead);
    }
    for (int step = total - ahead; step < total; ++step) backward(step);
    schedule.ranks.push_back(list.take());
  }
  return schedule;
}

}  // namespace shoestring
