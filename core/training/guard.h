// Guards a run against steps that would damage it, and lets none of them end it while it can go on.
//
// A large but finite gradient norm is no reason to skip: the step is clipped and counted. Skipped is what is not
// finite, and the first step whose loss stands out (mean + sigmas * deviation of the last steps): one strange batch is
// passed over. A second one in a row, on other data, says that the weights are the cause, and weights that do not move
// do not get better: then the clipped step is taken, or, if the recipe says so, the run goes back to its last
// checkpoint and past the data between (PaLM, arXiv 2204.02311, section 5.1). What stood out enters the window as the
// bound it broke, so that the window follows a run that has changed, and one absurd value does not blind it. Only steps
// that are not finite, skip_limit in a row, end a run.
//
// All of it depends on reduced values alone, so that every rank judges the same; the window is part of the checkpoint,
// so that a resumed run judges as the undisturbed one would have.
#pragma once

#include <cstdint>
#include <deque>
#include <limits>
#include <string>

#include "core/recipe/recipe.h"

namespace shoestring {

/// What the guard remembers; saved with every checkpoint.
struct GuardState {
  std::deque<double> losses;  ///< of the last finite steps, oldest first; none above the bound that held for it
  std::deque<double> norms;
  int strange_in_row = 0;     ///< steps up to now that were not finite or whose loss stood out
  int skipped_in_row = 0;     ///< steps up to now that left the weights as they were
  int broken_in_row = 0;      ///< steps up to now whose loss or gradient norm was not finite
  bool tried_return = false;  ///< in answer to these strange steps the run went back to a checkpoint, or found none
  std::int64_t skipped = 0;   ///< in the whole run, as the next two
  std::int64_t clipped = 0;   ///< steps whose gradient norm was above what was applied
  std::int64_t returns = 0;   ///< times the run went back to a checkpoint
};

enum class StepVerdict : std::uint8_t {
  apply,    ///< move the weights, by a gradient of norm `norm_limit` at most
  skip,     ///< leave the weights as they are; the data is used up
  go_back,  ///< to the last checkpoint and past the data between: Guard::went_back or Guard::stayed follows
  end,      ///< nothing finite has come for skip_limit steps
};

struct Judgement {
  StepVerdict verdict = StepVerdict::apply;
  double norm_limit = std::numeric_limits<double>::infinity();
  std::string why;  ///< what stood out; empty where nothing did
};

class Guard {
 public:
  /// `clip`: optimizer.clip, 0: off.
  Guard(const GuardSpec& spec, double clip) : spec_(spec), clip_(clip) {}

  /// `may_go_back`: there is a checkpoint to go back to.
  Judgement judge(double loss, double gradient_norm, bool may_go_back = false);

  /// After go_back: the weights are those of a checkpoint again, whose window was `then`.
  void went_back(const GuardState& then);
  /// After go_back: there was no checkpoint to go back to, the weights are as they were.
  void stayed();

  /// What was usual is so no longer: another phase has other text, lengths and batches.
  void forget();

  const GuardState& state() const { return state_; }
  void restore(GuardState state) { state_ = std::move(state); }

 private:
  StepVerdict verdict_on_strange(bool finite, bool may_go_back);
  void skip();

  GuardSpec spec_;
  double clip_;
  GuardState state_;
};

}  // namespace shoestring
