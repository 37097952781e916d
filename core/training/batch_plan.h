// Which samples a step trains on, and which rank computes which of them.
//
// A phase consumes samples 0, 1, 2, ... of its loader. A step takes the next global batch, cut into micro-batches in
// order, and those into reduction groups (parallel/reduction.h); a rank computes one group per round. All of it is a
// function of (phase, samples consumed so far, ranks), so nothing but that one counter needs to be saved.
#pragma once

#include <cstdint>
#include <utility>

#include "core/recipe/recipe.h"
#include "data/loader.h"
#include "parallel/reduction.h"

namespace shoestring {

class BatchPlan {
 public:
  BatchPlan(const PhaseSpec& phase, int reduction_groups, int ranks)
      : phase_(phase), groups_(reduction_groups), ranks_(ranks) {}

  /// Sequences of the global batch that begins after `samples` samples: ramped linearly in tokens, in whole
  /// micro-batches per reduction group until the ramp ends at the phase's global_batch.
  std::int64_t global_batch(std::int64_t samples) const;
  std::int64_t microbatches(std::int64_t samples) const { return global_batch(samples) / phase_.micro_batch; }
  int rounds() const { return groups_ / ranks_; }

  /// Micro-batches of the group that `rank` computes in `round`, as positions in the global batch.
  GroupRange group(std::int64_t samples, int round, int rank) const {
    return reduction_group(microbatches(samples), groups_, group_of(round, rank, ranks_));
  }
  /// Of the smallest group.
  std::int64_t fewest_microbatches(std::int64_t samples) const { return microbatches(samples) / groups_; }
  /// The samples of micro-batch `microbatch` of the global batch that begins after `samples` samples.
  SampleRange range(std::int64_t samples, std::int64_t microbatch) const {
    return {samples + microbatch * phase_.micro_batch, phase_.micro_batch};
  }

  const PhaseSpec& phase() const { return phase_; }

 private:
  PhaseSpec phase_;
  int groups_;
  int ranks_;
};

/// The micro-batches of one rank from a position on, in the order it computes them; endless.
class RankOrder {
 public:
  RankOrder(BatchPlan plan, std::int64_t samples, int rank) : plan_(std::move(plan)), samples_(samples), rank_(rank) {
    enter();
  }
  SampleRange next();

 private:
  void enter();
  BatchPlan plan_;
  std::int64_t samples_;
  int rank_;
  int round_ = 0;
  GroupRange group_;
  std::int64_t at_ = 0;
};

}  // namespace shoestring
