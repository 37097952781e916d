// How long the coming steps will take, judged by those that were: what time left, the room for one more step and the
// decay of the learning rate go by.
//
// A machine is uneven on every scale: single steps stall, other programs come and go, a device slows down for good. So
// the coming steps are judged by the last few, and what must hold even in a bad moment by the slowest stretches there
// were. An expectation that follows the present pace makes a plan that is renewed often one of time: the way gone is
// then the share of the time that is spent, whatever came before.
#pragma once

#include <array>
#include <cstdint>
#include <limits>
#include <span>

namespace shoestring {

class StepSeconds {
 public:
  /// `seconds`: from the decision for the step to the next decision.
  void add(double seconds, double tokens);
  bool measured() const { return count_ > 0; }
  /// Whether there is more than the first step, which warms caches and tells little.
  bool settled() const { return count_ > 1; }

  double typical() const { return quantile(last_, 0.5); }  ///< of the last 32; 0 before the first
  double slow() const { return quantile(last_, 0.9); }
  /// Usual seconds per token over the least of all steps, which has the best pace; 1 before the first.
  double slowdown() const;

  /// Mean over a short stretch of steps in a bad moment.
  double slow_stretch() const;

  /// Slow stretches over quick ones, at least 1.
  double unevenness() const;

  /// Steps that fit into `seconds` when each is followed by `pause_seconds` of other work: as expected ...
  double expected_within(double seconds, double pause_seconds) const;
  /// ... and to rely on: one in twenty of them, and never less than three, in a bad moment. A share, so that a plan
  /// that is renewed on the way is ahead by a twentieth of what remains and no more.
  double surely_within(double seconds, double pause_seconds) const;

 private:
  static constexpr int kWindow = 32;
  static constexpr int kBlock = 8;  ///< steps of a stretch that is kept
  static constexpr int kBlocks = 64;
  using Window = std::array<double, kWindow>;
  double quantile(const Window& of, double share) const;
  double mean_of_last(int steps) const;  ///< of 1 to 32; the first of all steps counts only where it is alone
  std::span<const double> whole_blocks() const;

  Window last_{};
  Window per_token_{};
  double best_per_token_ = std::numeric_limits<double>::infinity();
  std::array<double, kBlocks> blocks_{};  ///< mean seconds of eight steps each, the newest 64
  std::int64_t count_ = 0;
};

}  // namespace shoestring
