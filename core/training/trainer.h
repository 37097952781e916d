// The training loop: the first file to read. trainer.cpp holds the loop, trainer_begin.cpp how an attempt begins or
// goes on, trainer_back.cpp how earlier weights come back, trainer_end.cpp how it ends. What the loop is made of has
// files of its own: decision.h (what comes next), layout.h (where a rank stands), engine.h (a step), phase.h (its
// data), snapshot.h (saving), account.h (what a run keeps of itself).
#pragma once

#include <cstdio>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>

#include "core/budget/meter.h"
#include "core/recipe/recipe.h"
#include "core/training/account.h"
#include "core/training/decision.h"
#include "core/training/engine.h"
#include "core/training/phase.h"
#include "core/training/power_log.h"
#include "core/training/run_resources.h"
#include "core/training/seat.h"
#include "core/training/signals.h"
#include "core/training/snapshot.h"
#include "core/training/step_trace.h"
#include "core/training/stop_agreement.h"
#include "core/training/training_state.h"

namespace shoestring {

struct TrainerOptions {
  std::filesystem::path recipe_folder;  ///< where relative names of the recipe (hardware) are looked for
  bool allow_recipe_change = false;     ///< go on although the recipe is not the one the run began with
  bool begin_anew = false;              ///< move aside what an earlier run of this name left
  bool from_older = false;              ///< go on from an older checkpoint where the last saved one is not there
  std::string warning_command = {};     ///< run at each share of budget.warn_at that is passed (budget/warning.h)
  std::FILE* out = stdout;              ///< progress of rank 0
  const ShardStorage* storage = &system_storage();  ///< that shards lie on
};

/// One attempt of a run: begins it, or goes on from its newest sound checkpoint.
class Trainer {
 public:
  /// Collective over `world`. Throws what is wrong with recipe, data, checkpoint or budget before the first step.
  Trainer(Recipe recipe, Communicator& world, const Clock& clock, TrainerOptions options);

  /// Trains until the horizon or the budget ends, or a signal asks to leave. Returns done or preempted; throws Error
  /// when the run must stop otherwise, after saving what is whole and not yet saved; its text names the checkpoints
  /// that are there. Either way the ledger has its last line.
  ExitCode run();

 private:
  // The loop.
  Stop train();
  Decision decide_together();
  StepOutcome step();
  void keep_trace();
  void take_note(const StepOutcome& outcome);
  bool evaluate(bool last);
  bool ask_suites(bool last);
  void judge_held_out(double loss);
  bool best_is_unsaved() const;
  void return_to_best();
  void save() { save(recipe_.checkpoint.keep); }
  void save(int keep);
  void go_back();

  // How it begins.
  void begin();
  void check_checkpoints_are_shared();
  void load(bool ended);
  void leave_if_asked() const;
  std::string resume(const std::filesystem::path& checkpoint);
  std::unique_ptr<Engine> make_engine();
  void begin_weights();
  bool took_other_weights_since(int phase) const;
  void enter_phase();
  void enter_next_phase();
  StorageHooks storage_hooks();
  void tell_sources();
  void watch_power(const std::string& pci);
  void tell_power();
  void tell_waits();
  void close_reading() noexcept;
  void guess_evaluation();
  void guess_suites();

  // How it ends.
  Stop finish(Stop stop);
  void require_finite_end();
  [[noreturn]] void end_on_non_finite(const std::string& why);
  [[noreturn]] void end_on_short_job();
  void keep_what_is_whole() noexcept;
  void save_on_the_way_out();
  void await_the_others() noexcept;

  CategorySeconds spent();
  SnapshotParts parts() {
    return {work_.resources->model(), work_.resources->optimizer(), work_.resources->tokenizer(),
            &work_.resources->carried(), recipe_.parallel.shard_optimizer};
  }
  /// What is odd about checkpoints that are looked for is said; what could not be done while saving is noted as well.
  CheckpointNotice looking() {
    return [this](const std::string& text) { account_->say(text); };
  }
  CheckpointNotice saving() {
    return [this](const std::string& text) { account_->note("checkpoints", text); };
  }

  /// What this attempt's seconds are, and when it is to leave.
  struct Timing {
    Timing(const Seat& seat, const Recipe& recipe, const Clock& clock)
        : meter(clock),
          stop(seat.world, clock, stop_requested),
          trace(seat.world, seat.layout, recipe.run.trace, meter) {}
    Meter meter;
    StopAgreement stop;
    StepTrace trace;
  };
  /// How far the run has come, and this attempt of it.
  struct Attempt {
    TrainingState state;
    bool over = false;                 ///< an earlier attempt brought the run to its end
    bool shared_error = false;         ///< the error under way was thrown by every rank
    std::int64_t first_step = 0;       ///< steps done when it began
    std::int64_t evaluated_step = -1;  ///< of the last evaluation
    std::optional<double> held_out{};  ///< its loss; none where it had no time for a token
    std::int64_t asked_step = -1;      ///< when suites were asked last
    double waits_until = 0;            ///< on the meter: then a storage that fails is waited for no longer
  };
  /// What trains, and on what; each is made from those before it.
  struct Work {
    std::unique_ptr<RunResources> resources;
    std::unique_ptr<Engine> engine;
    std::unique_ptr<Phase> phase;
    bool waits_told = false;  ///< of the present engine
    DataReading read_before;  ///< in this attempt, in phases before the present one; of all ranks
  };
  /// Of a CUDA device; `power` where it tells something.
  struct Energy {
    std::unique_ptr<DeviceMonitor> monitor;
    std::unique_ptr<PowerLog> power;
  };

  Recipe recipe_;
  TrainerOptions options_;
  Seat seat_;
  Timing timing_;
  Attempt attempt_;
  Snapshots snapshots_;
  std::unique_ptr<Account> account_;  // the silent one but on rank 0
  Work work_;
  Energy energy_;
};

}  // namespace shoestring
