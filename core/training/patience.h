// How long a rank may go without progress before the run is given up as hung: it follows the steps that were measured,
// and is longer only where files are read or written.
#pragma once

#include <algorithm>

#include "parallel/vital_signs.h"

namespace shoestring {

class Patience {
 public:
  /// run.hang_after, seconds; 0: by measured steps.
  explicit Patience(double given_seconds) : given_(given_seconds) {}

  /// Another kind of steps begins, none of which has been measured.
  void new_phase() { slowest_step_ = 0; }
  void step_took(double seconds) { slowest_step_ = std::max(slowest_step_, seconds); }
  /// What a save is expected to take, or took.
  void files_take(double seconds) { slowest_save_ = std::max(slowest_save_, seconds); }

  /// Within steps and evaluations: ten times the slowest step, and no less than what a busy machine may hold one up.
  WaitLimits steps() const {
    if (given_ > 0) return {given_, given_};
    if (slowest_step_ <= 0) return {kUnknown, kLeastFiles};
    return {std::max(kLeast, kTimes * slowest_step_), std::max(kLeast, kTimes * slowest_step_)};
  }
  /// Where ranks work on files, and others wait for them: a process that lives may be busy for long.
  WaitLimits files() const {
    const WaitLimits least = steps();
    return {std::max(least.progress_seconds, kLongestFileWork),
            std::max({least.sign_seconds, kLeastFiles, kTimes * slowest_save_})};
  }
  /// For the others, after one has failed: to save what is whole, and leave. The first save of a run may meet a busy
  /// disk, and nothing is measured yet.
  double grace() const { return kGrace + 3 * slowest_save_; }

 private:
  static constexpr double kTimes = 10;
  static constexpr double kLeast = 10;
  static constexpr double kLeastFiles = 60;
  static constexpr double kUnknown = 600;
  static constexpr double kLongestFileWork = 4 * 3600;
  static constexpr double kGrace = 15;

  double given_;
  double slowest_step_ = 0;
  double slowest_save_ = 0;
};

}  // namespace shoestring
