#include "core/budget/cap.h"

#include <algorithm>

#include "kernels/base/check.h"

namespace shoestring {
namespace {

constexpr double kMargin = 1.15;     // over what is expected of an ending
constexpr double kMostUneven = 2.5;  // slow steps over usual ones, as far as a guess is stretched by it
constexpr double kMostSlowdown = 5;  // steps at the present pace over those at the best, likewise
constexpr double kClosingSeconds = 0.1;
constexpr double kSecondsPerHour = 3600;

}  // namespace

CapKeeper::CapKeeper(const Cap& cap, int ranks, double spent_gpu_seconds, double evaluation_share,
                     const HeadStart& head_start)
    : cap_(cap),
      ranks_(ranks),
      spent_gpu_seconds_(spent_gpu_seconds),
      evaluation_share_(evaluation_share),
      head_start_(head_start) {
  check(ranks > 0, "a run has at least one rank, not {}", ranks);
}

double CapKeeper::most_of_evaluation() const {
  return evaluation_share_ * kSecondsPerHour * std::min(cap_.gpu_hours / ranks_, cap_.job_hours);
}

// How many times longer than at pace 1 a guessed ending takes.
double CapKeeper::pace_of(Ending ending) const {
  if (may_be_cut(ending)) return std::min(steps_.slowdown(), kMostSlowdown);
  // Where steps are uneven, it may fall into a slow stretch.
  const double usual = steps_.typical();
  return usual > 0 ? std::clamp(steps_.slow() / usual, 1.0, kMostUneven) : 1.0;
}

void CapKeeper::guess(Ending ending, double seconds) {
  const double pace = may_be_cut(ending) ? pace_of(ending) : 1.0;
  guess_[static_cast<std::size_t>(ending)] = seconds / pace;
  paced_[static_cast<std::size_t>(ending)] = steps_.measured();
}

void CapKeeper::measured(Ending ending, double seconds) {
  double& longest = longest_[static_cast<std::size_t>(ending)];
  longest = std::max(longest, seconds);
}

// The same in a bad moment: a plan that relied on a good one would find its reserve grown.
double CapKeeper::slow_pace_of(Ending ending) const {
  if (!may_be_cut(ending)) return kMostUneven;
  const double usual = steps_.typical();
  const double slower = usual > 0 ? std::max(1.0, steps_.slow_stretch() / usual) : 1;
  return std::min(steps_.slowdown() * slower, kMostSlowdown);
}

double CapKeeper::expected_seconds(Ending ending) const { return expected_seconds(ending, pace_of(ending)); }

double CapKeeper::expected_seconds(Ending ending, double pace) const {
  const auto which = static_cast<std::size_t>(ending);
  const double longest = longest_[which];
  if (may_be_cut(ending)) {
    return std::min(kMargin * (longest > 0 ? longest : pace * guess_[which]), most_of_evaluation());
  }
  // A guess is conservative; what was measured may have met a good moment.
  return longest > 0 ? longest * std::clamp(steps_.unevenness(), kMargin, kMostUneven) : pace * guess_[which];
}

double CapKeeper::reserve_seconds() const {
  double sum = kClosingSeconds;
  for (int ending = 0; ending < kEndings; ++ending) sum += expected_seconds(static_cast<Ending>(ending));
  return sum;
}

double CapKeeper::left_of_cap(double elapsed_seconds) const {
  return (cap_.gpu_hours * kSecondsPerHour - spent_gpu_seconds_ - head_start_.gpu_seconds) / ranks_ - elapsed_seconds;
}

double CapKeeper::left_before_reserve(double elapsed_seconds) const {
  const double left_of_job = cap_.job_hours * kSecondsPerHour - head_start_.job_seconds - elapsed_seconds;
  return std::min(left_of_cap(elapsed_seconds), left_of_job);
}

double CapKeeper::remaining_seconds(double elapsed_seconds) const {
  return left_before_reserve(elapsed_seconds) - reserve_seconds();
}

double CapKeeper::surely_remaining_of_cap(double elapsed_seconds) const {
  double left = left_of_cap(elapsed_seconds) - kClosingSeconds;
  for (int i = 0; i < kEndings; ++i) {
    const auto ending = static_cast<Ending>(i);
    left -= expected_seconds(ending, slow_pace_of(ending));
  }
  return left;
}

double CapKeeper::seconds_to_cap(double elapsed_seconds) const {
  return left_before_reserve(elapsed_seconds) - kClosingSeconds;
}

double CapKeeper::seconds_for_evaluation(double elapsed_seconds, bool saved, bool last) const {
  const double left = seconds_to_cap(elapsed_seconds) - (saved ? 0 : expected_seconds(Ending::checkpoint));
  const double suites = last ? expected_seconds(Ending::suites) : 0;
  if (suites <= 0) return std::min(left, most_of_evaluation());
  const double own = expected_seconds(Ending::evaluation);
  return std::min(std::max(left - suites, left * own / (own + suites)), most_of_evaluation());
}

double CapKeeper::seconds_for_suites(double elapsed_seconds, bool saved, bool last) const {
  const double left = last ? seconds_to_cap(elapsed_seconds) - (saved ? 0 : expected_seconds(Ending::checkpoint))
                           : remaining_seconds(elapsed_seconds) - steps_.slow();
  return std::min(left, most_of_evaluation());
}

double CapKeeper::seconds_of_cut() const {
  return expected_seconds(Ending::evaluation) + expected_seconds(Ending::suites);
}

CapDecision CapKeeper::may_step(double elapsed_seconds, double before_it) const {
  const double lent = steps_.measured() ? 0 : seconds_of_cut();
  if (remaining_seconds(elapsed_seconds) + lent - before_it >= steps_.slow()) return {true, CapLimit::none};
  const bool job = left_before_reserve(elapsed_seconds) < left_of_cap(elapsed_seconds);
  return {false, job ? CapLimit::job : CapLimit::run};
}

std::string CapKeeper::key_of(CapLimit limit) const {
  return limit == CapLimit::job ? "budget.job_hours" : limit == CapLimit::run ? cap_.from : "";
}

double CapKeeper::spent_gpu_hours(double elapsed_seconds) const {
  return (spent_gpu_seconds_ + head_start_.gpu_seconds + ranks_ * elapsed_seconds) / kSecondsPerHour;
}

void CapKeeper::check_startable(double elapsed_seconds) const {
  const double needed = reserve_seconds() - seconds_of_cut();
  if (left_of_cap(elapsed_seconds) > needed) return;
  const double waited = head_start_.gpu_seconds / kSecondsPerHour;
  fail(ExitCode::budget_spent,
       "{}: {:.6g} of {:.6g} GPU-hours ({}) are charged to this run{}, and what is left does not cover "
       "a step and the final checkpoint ({:.3g} s, ranks: {}); raise the cap to go on, or begin a new run where "
       "schedule.horizon = budget has ended the schedule",
       spent_gpu_seconds_ > 0 ? "the budget is spent" : "the budget is too small", spent_gpu_seconds_ / kSecondsPerHour,
       cap_.gpu_hours, cap_.from,
       waited > 0 ? fmt::format(", {:.3g} more went by while ranks waited for the first", waited) : "", needed, ranks_);
}

}  // namespace shoestring
