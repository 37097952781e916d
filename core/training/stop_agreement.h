// Leaving in the middle of a step or an evaluation, where one takes minutes: at the same turn on every rank.
//
// A turn is a micro-batch, and ranks take their turns side by side, not in step with each other. At the first turn of a
// step, and then about every two seconds of turns, all ranks meet in one all-reduce of two numbers: whether one of them
// was asked to leave, and how long its turns take. From the second every rank finds the same number of turns until the
// next meeting. So a request is obeyed within two seconds or one turn, whichever is longer, and turns of milliseconds
// are not slowed down.
#pragma once

#include <cstdint>

#include "core/budget/meter.h"
#include "parallel/communicator.h"

namespace shoestring {

class StopAgreement {
 public:
  /// `requested` says whether this rank was asked to leave. Both references must outlive it.
  StopAgreement(Communicator& world, const Clock& clock, bool (*requested)());

  /// Before the first turn of a step or an evaluation.
  void begin();
  /// Before each turn that all ranks take, by all ranks; collective now and then. True: all leave here. A rank by
  /// itself asks nobody, and leaves at once.
  bool leave();

 private:
  static constexpr double kPaceSeconds = 2;

  Communicator& world_;
  const Clock& clock_;
  bool (*requested_)();
  std::int64_t turns_left_ = 0;  // until the next meeting
  bool first_ = true;            // no turn of this step has begun
  double turn_began_ = 0;
  double longest_turn_ = 0;  // since the last meeting, seconds
};

}  // namespace shoestring
