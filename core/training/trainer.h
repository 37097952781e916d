// The training loop: the first file to read. trainer.cpp holds the loop, trainer_begin.cpp how an attempt begins or
// goes on, trainer_run.cpp what surrounds a step (saving, evaluating), trainer_end.cpp how an attempt ends.
#pragma once

#include <cstdio>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>

#include "core/budget/meter.h"
#include "core/recipe/recipe.h"
#include "core/training/account.h"
#include "core/training/checkpoint.h"
#include "core/training/decision.h"
#include "core/training/engine.h"
#include "core/training/evaluation.h"
#include "core/training/run_resources.h"
#include "core/training/training_state.h"

namespace shoestring {

struct TrainerOptions {
  std::filesystem::path recipe_folder;  ///< where relative names of the recipe (hardware) are looked for
  bool allow_recipe_change = false;     ///< go on although the recipe is not the one the run began with
  bool begin_anew = false;              ///< move aside what an earlier run of this name left
  bool from_older = false;              ///< go on from an older checkpoint where the last saved one is not there
  std::FILE* out = stdout;              ///< progress of rank 0
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
  /// Seconds that others wait while rank 0 alone writes, reads back or hashes files.
  static constexpr double kLongestFileWork = 4 * 3600;

  // The loop.
  Stop train();
  StepOutcome step();
  Decision decide_together();

  // Around it.
  void begin();
  std::string newest_checkpoint();
  CheckpointNotice notice();
  void load(bool ended);
  void guess_evaluation();
  void resume(const std::filesystem::path& checkpoint);
  void enter_phase(int phase);
  Stop finish(Stop stop);
  std::string keep_what_is_whole(const Error& error) noexcept;
  void await_the_others() noexcept;
  void go_back();
  [[noreturn]] void end_on_non_finite(const std::string& why);
  [[noreturn]] void end_on_short_job();
  void save();
  void save(int keep);
  void save_alone();
  void write_checkpoint(int keep);
  CheckpointCommit commit_of(double begin) const;
  bool evaluate(bool last);
  CategorySeconds spent();
  bool leads() const { return world_.rank() == 0; }
  const PhaseSpec& phase() const { return recipe_.phases[static_cast<std::size_t>(state_.phase)]; }

  Recipe recipe_;
  Communicator& world_;
  TrainerOptions options_;
  Meter meter_;
  std::filesystem::path directory_;
  CheckpointStore checkpoints_;
  TrainingState state_;

  std::unique_ptr<Account> account_;
  std::unique_ptr<RunResources> resources_;
  std::unique_ptr<Engine> engine_;
  std::unique_ptr<Evaluator> evaluator_;
  std::unique_ptr<Loader> loader_;
  std::unique_ptr<Feed> feed_;
  std::optional<BatchPlan> plan_;

  bool over_ = false;            // an earlier attempt brought the run to its end
  std::int64_t first_step_ = 0;  // steps done when this attempt began
  bool saving_ = false;          // a checkpoint is being written
  bool shared_error_ = false;    // the error under way was thrown by every rank
  std::int64_t saved_step_ = -1;
  std::int64_t evaluated_step_ = -1;
  double saved_at_ = 0;  // meter seconds of the last checkpoint
};

}  // namespace shoestring
