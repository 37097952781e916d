// Where a run stands between two steps: everything a resume needs besides tensors. Written as training/state.json.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/budget/horizon.h"
#include "core/training/guard.h"

namespace shoestring {

struct TrainingState {
  std::int64_t step = 0;            ///< global batches used, skipped ones included
  std::int64_t updates = 0;         ///< optimizer updates applied
  std::int64_t tokens = 0;          ///< of text that were read in training, learned or not
  std::int64_t learned_tokens = 0;  ///< of those
  int phase = 0;                    ///< index into Recipe::phases
  std::int64_t phase_steps = 0;
  std::int64_t phase_samples = 0;  ///< samples used of the phase's loader
  int reduction_groups = 0;        ///< fixed by the first attempt
  std::string data_plan;           ///< Loader::plan() of the phase: the stream must not change under a run
  std::string recipe;              ///< canonical text of the recipe so far
  std::vector<HorizonDecision> decisions;
  GuardState guard;
  double loss = 0;                ///< of the last step
  std::int64_t proven_step = -1;  ///< of the newest checkpoint whose weights took a finite step; -1: none has yet
  // For PhaseSpec::patience:
  std::optional<double> best_held_out;  ///< least loss of a whole evaluation of the phase; none: not one finite yet
  std::int64_t best_step = -1;          ///< when; -1: not yet, or in a checkpoint from before it was kept
  std::int64_t stale_evaluations = 0;   ///< in a row since
};

/// Doubles keep every bit.
std::string to_json(const TrainingState& state);
/// Throws Error(corrupt_checkpoint) naming the key that is missing or out of range.
TrainingState training_state_from_json(const std::string& text, const std::string& where);

}  // namespace shoestring
