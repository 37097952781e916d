#include "core/budget/cap.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/base/check.h"

namespace shoestring {
namespace {

constexpr double kMargin = 1.15;     // over what is expected of an ending
constexpr double kMostUneven = 2.5;  // slow steps over usual ones, as far as a guess is stretched by it
constexpr double kMostSlowdown = 5;  // steps at the present pace over those at the best, likewise
constexpr double kClosingSeconds = 0.1;
constexpr double kSecondsPerHour = 3600;

}  // namespace

void StepSeconds::add(double seconds, double tokens) {
  const auto at = static_cast<std::size_t>(count_ % kWindow);
  last_[at] = seconds;
  per_token_[at] = seconds / std::max(1.0, tokens);
  best_per_token_ = std::min(best_per_token_, per_token_[at]);
  ++count_;
}

double StepSeconds::quantile(const Window& of, double share) const {
  if (count_ == 0) return 0;
  const auto filled = static_cast<std::size_t>(std::min<std::int64_t>(count_, kWindow));
  std::vector<double> sorted(of.begin(), of.begin() + static_cast<std::ptrdiff_t>(filled));
  std::sort(sorted.begin(), sorted.end());
  return sorted[static_cast<std::size_t>(std::llround(share * static_cast<double>(filled - 1)))];
}

double StepSeconds::slowdown() const {
  return measured() && best_per_token_ > 0 ? quantile(per_token_, 0.5) / best_per_token_ : 1;
}

CapKeeper::CapKeeper(const Cap& cap, int ranks, double spent_gpu_seconds, double evaluation_share)
    : cap_(cap), ranks_(ranks), spent_gpu_seconds_(spent_gpu_seconds), evaluation_share_(evaluation_share) {
  check(ranks > 0, "a run has at least one rank, not {}", ranks);
}

double CapKeeper::most_of_evaluation() const {
  return evaluation_share_ * kSecondsPerHour * std::min(cap_.gpu_hours / ranks_, cap_.job_hours);
}

// How many times longer than at pace 1 a guessed ending takes.
double CapKeeper::pace_of(Ending ending) const {
  if (ending == Ending::evaluation) return std::min(steps_.slowdown(), kMostSlowdown);
  // Where steps are uneven, it may fall into a slow stretch.
  const double usual = steps_.typical();
  return usual > 0 ? std::clamp(steps_.slow() / usual, 1.0, kMostUneven) : 1.0;
}

void CapKeeper::guess(Ending ending, double seconds) {
  const double pace = ending == Ending::evaluation ? pace_of(ending) : 1.0;
  guess_[static_cast<std::size_t>(ending)] = seconds / pace;
}

void CapKeeper::measured(Ending ending, double seconds) {
  double& longest = longest_[static_cast<std::size_t>(ending)];
  longest = std::max(longest, seconds);
}

double CapKeeper::expected_seconds(Ending ending) const {
  const auto which = static_cast<std::size_t>(ending);
  const bool evaluation = ending == Ending::evaluation;
  const double margin = evaluation ? kMargin : 1.0;  // other guesses are conservative
  const double seconds = longest_[which] > 0 ? kMargin * longest_[which] : margin * pace_of(ending) * guess_[which];
  return evaluation ? std::min(seconds, most_of_evaluation()) : seconds;
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

double CapKeeper::seconds_for_evaluation(double elapsed_seconds, bool saved, bool last) const {
  const double left = seconds_to_cap(elapsed_seconds) - (saved ? 0 : expected_seconds(Ending::checkpoint));
  return last ? left : std::min(left, most_of_evaluation());
}

CapDecision CapKeeper::may_step(double elapsed_seconds, double before_it) const {
  const double lent = steps_.measured() ? 0 : expected_seconds(Ending::evaluation);
  if (remaining_seconds(elapsed_seconds) + lent - before_it >= steps_.slow()) return {true, CapLimit::none};
  const double ranks = ranks_;
  const bool job = cap_.job_hours * kSecondsPerHour < (cap_.gpu_hours * kSecondsPerHour - spent_gpu_seconds_) / ranks;
  return {false, job ? CapLimit::job : CapLimit::run};
}

std::string CapKeeper::key_of(CapLimit limit) const {
  return limit == CapLimit::job ? "budget.job_hours" : limit == CapLimit::run ? cap_.from : "";
}

double CapKeeper::spent_gpu_hours(double elapsed_seconds) const {
  return (spent_gpu_seconds_ + ranks_ * elapsed_seconds) / kSecondsPerHour;
}

void CapKeeper::check_startable(double elapsed_seconds) const {
  const double cap_seconds = cap_.gpu_hours * kSecondsPerHour;
  const double needed = reserve_seconds() - expected_seconds(Ending::evaluation);
  if (spent_gpu_seconds_ + ranks_ * (elapsed_seconds + needed) < cap_seconds) return;
  fail(ExitCode::budget_spent,
       "{}: {:.6g} of {:.6g} GPU-hours ({}) are charged to this run, and what is left does not cover "
       "a step and the final checkpoint ({:.3g} s, ranks: {}); raise the cap to go on, or begin a new run where "
       "schedule.horizon = budget has ended the schedule",
       spent_gpu_seconds_ > 0 ? "the budget is spent" : "the budget is too small", spent_gpu_seconds_ / kSecondsPerHour,
       cap_.gpu_hours, cap_.from, needed, ranks_);
}

}  // namespace shoestring
