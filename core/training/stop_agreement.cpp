#include "core/training/stop_agreement.h"

#include <algorithm>
#include <array>

namespace shoestring {

StopAgreement::StopAgreement(Communicator& world, const Clock& clock, bool (*requested)())
    : world_(world), clock_(clock), requested_(requested) {}

void StopAgreement::begin() {
  turns_left_ = 0;
  first_ = true;
}

bool StopAgreement::leave() {
  if (world_.size() == 1) return requested_();
  if (!first_) longest_turn_ = std::max(longest_turn_, clock_.monotonic_seconds() - turn_began_);
  first_ = false;
  bool leave = false;
  if (turns_left_ == 0) {
    std::array<double, 2> words = {requested_() ? 1.0 : 0.0, longest_turn_};
    world_.all_reduce(view_of(words.data(), DType::f64, {2}), Reduction::max);
    leave = words[0] != 0;
    constexpr double kMostTurns = 1e6;
    turns_left_ = words[1] > 0 ? static_cast<std::int64_t>(std::clamp(kPaceSeconds / words[1], 1.0, kMostTurns)) : 1;
    longest_turn_ = 0;
  }
  --turns_left_;
  turn_began_ = clock_.monotonic_seconds();  // what was waited for others belongs to no turn
  return leave;
}

}  // namespace shoestring
