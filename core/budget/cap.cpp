#include "core/budget/cap.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/base/check.h"

namespace shoestring {
namespace {

constexpr double kMargin = 1.15;  // over the longest ending measured so far
// Slow steps over usual ones, as far as a guess is stretched by it. Less for an evaluation: one that finds no time left
// ends early, and time kept for it in vain is lost to training.
constexpr double kMostUneven = 2.5;
constexpr double kMostUnevenEvaluation = 1.5;
constexpr double kClosingSeconds = 0.1;
constexpr double kSecondsPerHour = 3600;

}  // namespace

void StepSeconds::add(double seconds) {
  last_[static_cast<std::size_t>(count_ % kWindow)] = seconds;
  ++count_;
}

double StepSeconds::quantile(double share) const {
  if (count_ == 0) return 0;
  const auto filled = static_cast<std::size_t>(std::min<std::int64_t>(count_, kWindow));
  std::vector<double> sorted(last_.begin(), last_.begin() + static_cast<std::ptrdiff_t>(filled));
  std::sort(sorted.begin(), sorted.end());
  return sorted[static_cast<std::size_t>(std::llround(share * static_cast<double>(filled - 1)))];
}

CapKeeper::CapKeeper(const Cap& cap, int ranks, double spent_gpu_seconds)
    : cap_(cap), ranks_(ranks), spent_gpu_seconds_(spent_gpu_seconds) {
  check(ranks > 0, "a run has at least one rank, not {}", ranks);
}

void CapKeeper::guess(Ending ending, double seconds) { guess_[static_cast<std::size_t>(ending)] = seconds; }

void CapKeeper::measured(Ending ending, double seconds) {
  double& longest = longest_[static_cast<std::size_t>(ending)];
  longest = std::max(longest, seconds);
}

double CapKeeper::expected_seconds(Ending ending) const {
  const auto which = static_cast<std::size_t>(ending);
  if (longest_[which] > 0) return kMargin * longest_[which];
  // Where steps are uneven, an ending may fall into a slow stretch as well.
  const double usual = steps_.typical();
  const double most = ending == Ending::evaluation ? kMostUnevenEvaluation : kMostUneven;
  const double uneven = usual > 0 ? std::clamp(steps_.slow() / usual, 1.0, most) : 1.0;
  return uneven * guess_[which];
}

double CapKeeper::reserve_seconds() const {
  double sum = kClosingSeconds;
  for (int ending = 0; ending < kEndings; ++ending) sum += expected_seconds(static_cast<Ending>(ending));
  return sum;
}

double CapKeeper::left_of_cap(double elapsed_seconds) const {
  return (cap_.gpu_hours * kSecondsPerHour - spent_gpu_seconds_) / ranks_ - elapsed_seconds;
}

double CapKeeper::left_before_reserve(double elapsed_seconds) const {
  return std::min(left_of_cap(elapsed_seconds), cap_.job_hours * kSecondsPerHour - elapsed_seconds);
}

double CapKeeper::remaining_seconds(double elapsed_seconds) const {
  return left_before_reserve(elapsed_seconds) - reserve_seconds();
}

double CapKeeper::remaining_of_cap(double elapsed_seconds) const {
  return left_of_cap(elapsed_seconds) - reserve_seconds();
}

double CapKeeper::seconds_to_cap(double elapsed_seconds) const {
  return left_before_reserve(elapsed_seconds) - kClosingSeconds;
}

CapDecision CapKeeper::may_step(double elapsed_seconds, double before_it) const {
  if (remaining_seconds(elapsed_seconds) - before_it >= steps_.slow()) return {true, {}};
  const double ranks = ranks_;
  const bool job = cap_.job_hours * kSecondsPerHour < (cap_.gpu_hours * kSecondsPerHour - spent_gpu_seconds_) / ranks;
  return {false, job ? "budget.job_hours" : cap_.from};
}

double CapKeeper::spent_gpu_hours(double elapsed_seconds) const {
  return (spent_gpu_seconds_ + ranks_ * elapsed_seconds) / kSecondsPerHour;
}

void CapKeeper::check_startable(double elapsed_seconds) const {
  const double cap_seconds = cap_.gpu_hours * kSecondsPerHour;
  if (spent_gpu_seconds_ + ranks_ * (elapsed_seconds + reserve_seconds()) < cap_seconds) return;
  fail(ExitCode::budget_spent,
       "{}: {:.6g} of {:.6g} GPU-hours ({}) are charged to this run, and what is left does not cover "
       "the final evaluation and checkpoint ({:.3g} s, ranks: {}); raise the cap to go on, or begin a new run where "
       "schedule.horizon = budget has ended the schedule",
       spent_gpu_seconds_ > 0 ? "the budget is spent" : "the budget is too small", spent_gpu_seconds_ / kSecondsPerHour,
       cap_.gpu_hours, cap_.from, reserve_seconds(), ranks_);
}

}  // namespace shoestring
