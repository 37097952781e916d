// What can be known of a schedule before it runs: that it is complete and legal, that it cannot deadlock under NCCL's
// rules, how many activations it keeps, how long it takes.
#pragma once

#include <string>
#include <vector>

#include "parallel/schedule.h"

namespace shoestring {

struct ScheduleReport {
  std::vector<std::string> faults;  ///< empty: the schedule may run
  /// Per rank, the most (stage, micro-batch) pairs at once between the start of forward and the end of ...
  std::vector<int> peak_until_backward_input;
  std::vector<int> peak_until_backward_weight;  ///< ... this: what really stays in memory
};

/// Checks that every stage has one rank; every F, B and W of every (stage, micro-batch) stands exactly once and after
/// what it needs (only F where there is no backward at all); weight gradients keep micro-batch order in each stage;
/// sends and receives of every pair of ranks match in order; and nothing deadlocks although each message makes both its
/// ranks wait for each other (no buffering, no tags: NCCL on one stream, or stricter).
ScheduleReport check_schedule(const Schedule& schedule);
/// Per stage, the most micro-batches at once between the start of forward and the end of backward_weight (of forward,
/// where there is no backward): what its rank must have memory for.
std::vector<int> peak_of_stages(const Schedule& schedule);
/// Throws Error(bug) with the faults.
void require_sound(const Schedule& schedule);

/// Seconds, or any unit, for one stage and micro-batch.
struct ActionTimes {
  double forward = 1;
  double backward_input = 1;
  double backward_weight = 1;
  double transfer = 0;                 ///< from the end of the producer until the consumer may start
  double cell_hidden = 0;              ///< share of a cell's summed time that overlapping saves
  std::vector<double> per_stage = {};  ///< factor per stage; empty means all 1
};

struct Prediction {
  double makespan = 0;
  std::vector<double> busy;    ///< per rank
  std::vector<double> bubble;  ///< per rank: makespan - busy
  std::vector<double> inner;   ///< per rank: idle between its own first and last computation
  double worst_bubble() const;
};

/// Runs the schedule in simulated time: a rank takes its computations in order, sends never block.
Prediction predict(const Schedule& schedule, const ActionTimes& times);

}  // namespace shoestring
