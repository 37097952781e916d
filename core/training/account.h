// What a run keeps of itself while it trains: the ledger and its life sign, the cap, the metrics, the lines on the
// terminal. One rank keeps the account; on the others a silent twin stands in its place, so that the loop asks nobody
// for its rank.
#pragma once

#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>

#include "core/budget/cap.h"
#include "core/budget/ledger.h"
#include "core/budget/meter.h"
#include "core/model/config.h"
#include "core/recipe/recipe.h"
#include "core/training/checkpoint.h"
#include "core/training/decision.h"
#include "core/training/engine.h"
#include "core/training/evaluation.h"
#include "core/training/room.h"
#include "core/training/suite_evaluation.h"
#include "core/training/work_progress.h"
#include "kernels/base/device.h"

namespace shoestring {

/// All that is borrowed must outlive the account. `state` is where the run stands at each call.
struct AccountArgs {
  const Recipe& recipe;
  const TrainingState& state;
  const Meter& meter;
  const Clock& clock;
  int ranks = 1;
  HeadStart head_start{};           ///< of the other ranks, before the one that keeps the account
  std::filesystem::path directory;  ///< RUN
  std::FILE* out = stdout;
};

struct AccountOpening {
  Hardware hardware;
  std::optional<Price> price;
  const CheckpointStore& checkpoints;
  bool begin_anew = false;           ///< what an earlier run of this name left is moved aside
  bool from_older = false;           ///< see check_saved_work
  std::string warning_command = {};  ///< run at each share of budget.warn_at (warning.h)
};

/// What is known of an attempt once it is loaded.
struct AttemptFacts {
  const ModelConfig& model;
  Device device{};  ///< that tensors lie on
  double guessed_checkpoint_seconds = 0;
  CheckpointNeed checkpoint{};
  LeastRoom room{};                  ///< that the ranks have for it
  bool has_checkpoint = false;       ///< one stands there already
  bool fresh = false;                ///< no checkpoint was gone on from
  bool allow_schedule_over = false;  ///< go on though a budget horizon has ended its schedule
};

/// As it is on the ranks that keep none: nothing is written, said or decided. Not for several threads. `spent` is the
/// time of the attempt up to now, summed over ranks.
class Account {
 public:
  virtual ~Account() = default;

  /// Takes the run's ledger; from here on the attempt is charged. Returns whether an earlier attempt brought the run to
  /// its end: then no attempt begins before start(), which is also the first to ask whether a step fits under the cap.
  /// Throws what check_saved_work, check_inputs and CapKeeper::check_startable throw.
  virtual bool open(const AccountOpening&) { return false; }
  /// The attempt is loaded, its next step is the first. Throws Error(budget_spent) when the cap leaves no room for it,
  /// Error(bad_recipe) when the schedule has ended with a lower cap, Error(io) when the disk has no room for
  /// checkpoints, Error(missing_input) when shards of a phase that is yet to come are not there.
  virtual void start(const AttemptFacts&) {}

  /// A line that stays.
  virtual void say(const std::string&) {}
  /// The same, in the ledger too, under what it is `about`.
  virtual void note(const char* /*about*/, const std::string& /*text*/) {}

  /// How far something is that takes long; on the live line alone.
  virtual void working(const Progress&) {}

  /// Decides for all ranks; a new horizon is in the ledger before anybody follows it.
  virtual Decision decide(const Standing&) { return {}; }
  /// Seconds that an evaluation may take. `saved`: the present step is; `last`: no step comes after it.
  virtual double seconds_for_evaluation(bool /*saved*/, bool /*last*/) const { return 0; }
  /// Whether a guess would tell the cap anything: no evaluation was measured yet.
  virtual bool guesses_evaluation() const { return false; }
  virtual void guess_evaluation(double /*seconds*/) {}
  // The same of suites.
  virtual double seconds_for_suites(bool /*saved*/, bool /*last*/) const { return 0; }
  virtual bool guesses_suites() const { return false; }
  virtual void guess_suites(double /*seconds*/) {}
  /// Wall-clock seconds of what must follow the last step.
  virtual double reserve_seconds() const { return 0; }
  /// Wall-clock seconds until that must begin.
  virtual double remaining_seconds() const { return 0; }

  /// A step was taken, or skipped; `state` counts it already.
  virtual void stepped(const StepOutcome&, const CategorySeconds& /*spent*/) {}
  /// How the pipeline was used in the steps that were looked at; nothing without one.
  virtual void piped(const std::optional<PipelineUse>&) {}
  /// How the training data of this attempt came up to now; see reading_of_all.
  virtual void read(const DataReading&) {}
  virtual void entered_phase(const CategorySeconds& /*spent*/) {}
  virtual void saved(const CheckpointCommit&, const CategorySeconds& /*spent*/) {}
  virtual void evaluated(const Evaluator::Outcome&, double /*took_seconds*/, const CategorySeconds& /*spent*/) {}
  virtual void answered(const SuiteEvaluator::Outcome&, double /*took_seconds*/, const CategorySeconds& /*spent*/) {}

  /// The last lines of an attempt; `folder` holds the run's last checkpoint.
  virtual void ended(Stop, const std::filesystem::path& /*folder*/, const CategorySeconds& /*spent*/) {}
  virtual void failed(const Error&) noexcept {}
  /// `spent` where the other ranks cannot be asked: they are taken to be as this one is since all of them were there.
  virtual CategorySeconds spent_alone() const { return {}; }
};

/// The one that is kept.
std::unique_ptr<Account> leading_account(const AccountArgs& args);

}  // namespace shoestring
