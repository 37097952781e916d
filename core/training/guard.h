// Guards a run against steps that would damage it: non-finite numbers and spikes.
//
// A step whose loss or gradient norm is not finite, or exceeds mean + sigmas * deviation of the last accepted steps, is
// skipped: the weights do not move, the data is used up. Too many skips in a row end the run before anything bad is
// saved. The rule is OLMo's skip-step; unlike there, the window is part of the checkpoint, so that a resumed run
// decides as the undisturbed one would have.
#pragma once

#include <cstdint>
#include <deque>
#include <string>

#include "core/recipe/recipe.h"

namespace shoestring {

/// What the guard remembers; saved with every checkpoint.
struct GuardState {
  std::deque<double> losses;  ///< of the last accepted steps, oldest first
  std::deque<double> norms;
  int skipped_in_row = 0;
  std::int64_t skipped = 0;  ///< in the whole run
};

class Guard {
 public:
  explicit Guard(const GuardSpec& spec) : spec_(spec) {}

  /// Empty when the step may be applied; otherwise why it is skipped. Throws Error(non_finite) or Error(no_progress)
  /// when skip_limit steps in a row were skipped.
  std::string judge(std::int64_t step, double loss, double gradient_norm);

  /// What was usual is so no longer: another phase has other text, lengths and batches.
  void forget();

  const GuardState& state() const { return state_; }
  void restore(GuardState state) { state_ = std::move(state); }

 private:
  GuardSpec spec_;
  GuardState state_;
};

}  // namespace shoestring
