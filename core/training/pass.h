// One global batch through the model: every micro-batch along the schedule, then the canonical reduction over the data
// axis, and one exchange of the few numbers that every rank must know.
//
// The pass stands between the pipeline, which knows numbers, and the model, which knows tensors: it draws micro-batches
// from a feed when the first stage needs them, keeps them until the last one is done with them, and hands the model a
// tally to add up in. What comes out is one value.
//
// Gradients are complete in the backward pass of a group's last micro-batch only: what it has passed is reduced over
// the data axis while it goes on (GradientSum).
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "core/budget/meter.h"
#include "core/model/transformer.h"
#include "core/optimizer/gradient_sum.h"
#include "core/training/action_marks.h"
#include "core/training/batch_plan.h"
#include "core/training/feed.h"
#include "core/training/layout.h"
#include "parallel/mesh.h"
#include "parallel/pipeline.h"
#include "parallel/reduction.h"

namespace shoestring {

/// Sums over the whole global batch and the whole model: the same bits on every rank and under any layout.
struct PassResult {
  bool abandoned = false;   ///< it was to stop: nothing else here holds, nor do the gradients
  double loss = 0;          ///< nats, over trained tokens, each times its weight
  double tokens = 0;        ///< learned: those that are targets
  double weight = 0;        ///< of those: what means are over; their number, unless the objective says otherwise
  double further_loss = 0;  ///< of multi-token prediction, not weighted
  double further_tokens = 0;
  double text_tokens = 0;     ///< read, learned or not: what the model computed on, but for padding
  double balance_loss = 0;    ///< weighted
  Tensor router_counts;       ///< i64 [mixtures of the whole model, experts]; empty without experts
  PrecisionCounts precision;  ///< of weights: what preparing the present ones lost
  HostWaits waits;            ///< of this rank, for its device
};

/// What a rank did for a reduction group, as its list says.
struct GroupTrace {
  int group = 0;
  double begin_seconds = 0;  ///< since the start of the process; the entries count from there
  std::vector<TraceEntry> entries;
};

/// How a pass learns that it should end early. Either may be empty.
struct PassStops {
  /// Asked at the same moments on all ranks and with one answer (StopAgreement): before each micro-batch that every
  /// rank has; on a pipeline, whose ranks take theirs at different times, before each reduction group. True ends it
  /// there.
  std::function<bool()> all;
  /// Whether this rank was asked to leave; for a pipeline, before each action. From then on it passes messages on and
  /// computes nothing, so that all come to the end of their lists soon, with nothing left under way.
  std::function<bool()> own;
};

class Pass {
 public:
  /// All must outlive it. `groups` reduction groups over the data axis of `mesh`; `schedule` over its pipeline axis,
  /// whose stages are the model's; `shards` as GradientSum.
  Pass(Transformer& model, Mesh& mesh, int groups, Stream& stream, Meter& meter, ScheduleChoice schedule = {},
       const ParameterShards* shards = nullptr);
  ~Pass();

  /// Takes the memory that a run of `plan` takes from `samples` samples on, should it not be there.
  void make_room(const BatchPlan& plan, std::int64_t samples);

  /// Runs the global batch that begins after `samples` samples. Afterwards model.store().gradients holds the sum over
  /// all trained tokens, on every rank, of its stages (with shards: of its parts of them). Once `stops` ended it, and
  /// after an exception, the pass can only be destroyed.
  /// A device is waited for once, at the end, and there is one exchange of numbers behind it. `behind_gradients` is
  /// called before that wait and says what else this rank will know then, of which it is to have the sum over all.
  PassResult run(const BatchPlan& plan, std::int64_t samples, Feed& feed, const PassStops& stops = {},
                 const std::function<std::span<double>()>& behind_gradients = {});
  /// Of the last run, in turn.
  const std::vector<GroupTrace>& traces() const { return traces_; }

 private:
  class Round;
  class PipelineStage;
  Pipeline& pipeline_of(int microbatches);
  void run_round(const BatchPlan& plan, std::int64_t samples, int round, Feed& feed, const PassStops& stops);
  /// What the rounds sent, when the device has been waited for.
  void receive(std::vector<double>& numbers);
  /// Where the next numbers are.
  double* add_counts(PrecisionCounts counts, std::vector<double>& numbers) const;
  PassResult result_of(std::span<const double> numbers) const;
  std::size_t scalars() const { return 6 + static_cast<std::size_t>(model_.config().mixtures()); }
  std::int64_t loads() const;

  Transformer& model_;
  Mesh& mesh_;
  Stream& stream_;
  Meter& meter_;
  int groups_;
  ScheduleChoice schedule_;
  StepTally tally_;  // of the present round
  GradientSum gradients_;
  ExpertExchange* exchange_;                        // where experts are shared; may outlive the model
  Turns turns_;                                     // of the halves of a cell
  std::vector<std::unique_ptr<MicroBatch>> spare_;  // memory of micro-batches that are not in flight
  std::unique_ptr<Round> round_;                    // while it runs
  /// A round that the device may still be at.
  struct Sent {
    Storage tally;
    ActionMarks marks;
    int group = 0;
    double text_tokens = 0;  ///< of the group; known to the first rank of its pipeline
    bool hollow = false;
  };
  void add_numbers(const Sent& sent, std::vector<double>& numbers) const;
  std::vector<Sent> sent_;  // a place for each round
  std::size_t at_ = 0;      // the present one
  HostWaits waits_;         // of the present run
  std::vector<GroupTrace> traces_;
  std::vector<std::unique_ptr<PipelineStage>> stages_;  // of this rank
  std::map<int, std::unique_ptr<Pipeline>> pipelines_;  // by the number of micro-batches
};

}  // namespace shoestring
