// Saving and loading by all ranks together: those of the first replica, who hold the model together, write, each its
// own part, and of an optimizer's state that is shared out every rank its share; one looks for what is there; every one
// reads its own part.
//
// A snapshot is a run between two steps: weights, optimizer, and where it stands (training_state.h). On disk it is a
// checkpoint (checkpoint.h).
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "core/budget/ledger.h"
#include "core/budget/meter.h"
#include "core/model/transformer.h"
#include "core/optimizer/optimizer.h"
#include "core/training/checkpoint.h"
#include "core/training/model_files.h"
#include "core/training/training_state.h"
#include "data/tokenizer.h"
#include "parallel/mesh.h"

namespace shoestring {

/// What is saved and loaded; borrowed.
struct SnapshotParts {
  Transformer& model;
  Optimizer& optimizer;
  const Tokenizer& tokenizer;
  const ModelFiles* carried = nullptr;  ///< of the folder that the run began with
  bool shares_state = false;            ///< each rank has its share of the optimizer's state only
};

class Snapshots {
 public:
  /// `root` is RUN/checkpoints; all must outlive it. Their time is Category::checkpoint of `meter`.
  Snapshots(std::filesystem::path root, Mesh& mesh, Meter& meter);

  const CheckpointStore& store() const { return store_; }

  /// Collective over the ranks that write.
  CheckpointNeed need(const SnapshotParts& parts);

  /// Collective. The newest sound checkpoint, the same on every rank; empty where there is none. Throws as
  /// CheckpointStore::newest.
  std::filesystem::path newest(const CheckpointNotice& notice, const Between& between = nullptr);
  /// Collective. The checkpoint of this step; empty where it is not there, or damaged.
  std::filesystem::path of_step(std::int64_t step);
  /// Where the run stood.
  static TrainingState state_of(const std::filesystem::path& checkpoint);
  /// Weights and optimizer of a checkpoint that this rank can read. After an exception they are those of no step.
  static void load(const std::filesystem::path& checkpoint, const SnapshotParts& parts,
                   const Between& between = nullptr);
  /// The run goes on from a checkpoint of this step: nothing is to be saved.
  void loaded(std::int64_t step) { step_ = step; }

  /// Collective. Keeps the newest `keep`, the best on held-out text so far and, while steps are skipped, the last that
  /// a step was taken from; throws as CheckpointStore::save.
  CheckpointCommit save(const SnapshotParts& parts, const TrainingState& state, int keep,
                        const CheckpointNotice& notice);
  /// The same, the ranks meeting on another mesh of the same shape: theirs may hold messages of a step cut short.
  CheckpointCommit save_over(Mesh& mesh, const SnapshotParts& parts, const TrainingState& state, int keep,
                             const CheckpointNotice& notice);
  /// The same by one rank, which has the whole model, while the others are gone or wait in vain.
  CheckpointCommit save_alone(const SnapshotParts& parts, const TrainingState& state, int keep,
                              const CheckpointNotice& notice);

  /// Whether each rank has all that a checkpoint holds.
  bool holds_all(const SnapshotParts& parts) const;
  /// Whether this rank writes a part of a checkpoint.
  bool takes_part(const SnapshotParts& parts) const { return parts.shares_state || mesh_.at().replica == 0; }
  /// Whether this rank is the one that looks, and commits.
  bool writes() const { return mesh_.world().rank() == 0; }
  /// Whether a save began on this rank that has not come to its end.
  bool writing() const { return writing_; }
  std::int64_t step() const { return step_; }         ///< of the last that was saved or loaded; -1: none
  double saved_seconds() const { return saved_at_; }  ///< on the meter: of the last that was saved; 0: none
  /// From now on age counts: the attempt begins.
  void begin() { saved_at_ = meter_.elapsed_seconds(); }

 private:
  void write(const SnapshotParts& parts, const TrainingState& state, int keep, const CheckpointNotice& notice,
             Communicator& team);
  CheckpointCommit commit(std::int64_t bytes, const TrainingState& state, double begin);

  CheckpointStore store_;
  Mesh& mesh_;
  Meter& meter_;
  bool writing_ = false;
  std::int64_t step_ = -1;
  double saved_at_ = 0;
};

}  // namespace shoestring
