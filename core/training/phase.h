// One phase as one rank goes through it: the plan of its batches, the loader and the feed they come from, and the
// evaluators over its held-out text and its suites of questions.
#pragma once

#include <memory>
#include <string>

#include "core/training/batch_plan.h"
#include "core/training/evaluation.h"
#include "core/training/feed.h"
#include "core/training/run_resources.h"
#include "core/training/suite_evaluation.h"
#include "core/training/training_state.h"

namespace shoestring {

class Phase {
 public:
  /// Seconds for which opening or reading a shard waits for a storage, before the run is saved and left (75); fewer
  /// where the cap leaves fewer.
  static constexpr double kStoragePatienceSeconds = 300;

  /// Collective. The phase that `state` is in, from its `phase_samples` on, with its reduction groups. All but `layout`
  /// and `state` must outlive it. Throws Error(bad_data) where the data are not those of state.data_plan (empty: the
  /// phase begins).
  Phase(const Recipe& recipe, RunResources& resources, Mesh& mesh, const Layout& layout, const TrainingState& state,
        const StorageHooks& hooks = {});

  const BatchPlan& plan() const { return plan_; }
  Feed& feed() { return *feed_; }
  /// Null where nothing is held out.
  Evaluator* evaluator() { return evaluator_.get(); }
  /// Null where no questions are asked at its end.
  SuiteEvaluator* suites() { return suites_.get(); }
  /// See Loader::plan.
  std::string data_plan() const { return loader_->plan(); }
  /// What becomes of documents longer than a sample; empty where they are split, or there are none.
  std::string long_documents() const;
  /// How many of the phase's first `samples` samples each source gave, exactly; empty of one source alone.
  std::string given(std::int64_t samples) const;
  /// How far training shards are copied to a disk near by; empty where they are not.
  std::string staged() const;
  /// How this rank's training data came.
  DataReading reading() const;
  /// The first document of sample 0 as text, what is learned marked.
  std::string first_example(const Tokenizer& tokenizer) const;

 private:
  BatchPlan plan_;
  StorageNews news_;
  std::unique_ptr<Loader> loader_;
  std::unique_ptr<LoaderFeed> feed_;
  std::unique_ptr<Evaluator> evaluator_;
  std::unique_ptr<SuiteEvaluator> suites_;
};

/// The same of all ranks, with the shard that each waited for the longest. Collective.
DataReading reading_of_all(const DataReading& own, Communicator& world);

}  // namespace shoestring
