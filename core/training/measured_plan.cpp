#include "core/training/measured_plan.h"

#include <unistd.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "core/budget/cap.h"
#include "core/budget/ledger_history.h"
#include "core/budget/life_sign.h"
#include "core/recipe/explain.h"
#include "core/training/run_resources.h"
#include "core/training/seat.h"
#include "kernels/base/check.h"
#include "kernels/base/file.h"

namespace shoestring {
namespace {

constexpr double kMostSeconds = 120;
constexpr double kSecondsPerHour = 3600;

/// The attempt in the ledger that a trial is charged as.
class Charge {
 public:
  Charge(const Recipe& recipe, const Hardware& hardware, int ranks, const HeadStart& head_start, const Clock& clock)
      : ranks_(ranks), head_start_(head_start), meter_(clock), directory_(run_directory(recipe)) {
    make_directories(directory_);
    ledger_.emplace(directory_, clock);
    const auto price = price_of(recipe.budget);
    const Cap cap = cap_of(recipe.budget, hardware, ledger_->history().spent(price, hardware.watts));
    left_gpu_hours_ = cap.gpu_hours - ledger_->history().charged_gpu_seconds() / kSecondsPerHour;
    if (left_gpu_hours_ <= 0) {
      fail(ExitCode::budget_spent, "{}: nothing of {:.6g} GPU-hours is left to measure with; raise budget.gpu_hours",
           cap.from, cap.gpu_hours);
    }
    for (const AttemptHistory& attempt : ledger_->history().attempts) begun_ = begun_ || attempt.begun;
    ledger_->begin({.run = recipe.run.name,
                    .project = recipe.run.project,
                    .ranks = ranks,
                    .head_start_gpu_seconds = head_start.gpu_seconds,
                    .host = {},
                    .pid = getpid(),
                    .recipe_hash = recipe_hash(recipe),
                    .build = SHOESTRING_BUILD,
                    .variants = {},
                    .from_step = -1,
                    .cap = cap,
                    .price = price,
                    .hardware = hardware});
    life_sign_.emplace(directory_, ledger_->attempt(), clock);
  }

  void end(std::string_view reason, ExitCode code, const std::string& text) {
    AttemptProgress progress;
    progress.seconds[Category::startup] = gpu_seconds();
    ledger_->end(std::string(reason), static_cast<int>(code), text, progress);
  }

  /// Of all ranks, up to now.
  double gpu_seconds() const { return ranks_ * meter_.elapsed_seconds() + head_start_.gpu_seconds; }
  bool begun() const { return begun_; }
  double left_gpu_hours() const { return left_gpu_hours_; }
  const std::filesystem::path& directory() const { return directory_; }

 private:
  int ranks_;
  HeadStart head_start_;
  Meter meter_;
  std::filesystem::path directory_;
  std::optional<Ledger> ledger_;
  std::optional<LifeSign> life_sign_;
  double left_gpu_hours_ = 0;
  bool begun_ = false;
};

/// All ranks, together. The attempt's reason is that of a trial: the run has not begun.
[[noreturn]] void leave(const Recipe& recipe, std::optional<Charge>& charge, Communicator& world) {
  const std::string text = left_trial_text(recipe);
  if (charge) charge->end(kMeasuredOnly, ExitCode::preempted, text);
  double charged = 1;  // before a rank leaves: its end is the end of all
  if (world.size() > 1) world.broadcast(view_of(&charged, DType::f64, {1}), 0);
  throw Error(ExitCode::preempted, text);
}

}  // namespace

double trial_seconds(const Recipe& recipe, const Cap& cap, int ranks, double wanted) {
  const double of_cap = kTrialShareOfCap * cap.gpu_hours * kSecondsPerHour / ranks;
  return std::min({wanted, kMostSeconds, of_cap}) / static_cast<double>(recipe.phases.size());
}

MeasuredPlan measure_plan(const Recipe& recipe, const Hardware& hardware, Communicator& world, const Clock& clock,
                          double wanted_seconds) {
  Seat seat(world, recipe, clock);  // first: a launch that is none costs the run nothing
  const Cap cap = cap_of(recipe.budget, hardware);
  MeasuredPlan measured;
  measured.seconds_per_phase = trial_seconds(recipe, cap, world.size(), wanted_seconds);
  std::optional<Charge> charge;
  if (world.rank() == 0) charge.emplace(recipe, hardware, world.size(), seat.head_start, clock);
  std::optional<Speeds> speeds;
  try {
    if (!seat.alone()) seat.watch.begin(run_directory(recipe));
    speeds = try_speed(recipe, seat, clock, measured.seconds_per_phase);
  } catch (const std::exception& exception) {
    const Error error = as_error(exception);
    seat.watch.tell_others(error);
    if (charge) {
      charge->end(error.code() == ExitCode::preempted ? kMeasuredOnly : "failed", error.code(), error.what());
    }
    seat.watch.await_leader();
    throw;
  }
  if (!speeds) leave(recipe, charge, world);
  measured.speeds = std::move(*speeds);
  if (charge) measured.speeds.trial_seconds = charge->gpu_seconds() / world.size();
  measured.plan = make_plan(recipe, charge ? charge->left_gpu_hours() : cap.gpu_hours, measured.speeds);
  if (!charge) return measured;
  measured.begun = charge->begun();
  if (!measured.begun) write_plan(charge->directory(), measured.plan, recipe);
  charge->end(kMeasuredOnly, ExitCode::done, "");
  return measured;
}

}  // namespace shoestring
