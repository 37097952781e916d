// One global batch through the model: every micro-batch along the schedule, then the canonical reduction over ranks.
//
// The pass stands between the pipeline, which knows numbers, and the model, which knows tensors: it draws micro-batches
// from a feed when the first stage needs them, keeps them until the last one is done with them, and hands the model a
// tally to add up in. What comes out is one value.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "core/budget/meter.h"
#include "core/model/transformer.h"
#include "core/training/batch_plan.h"
#include "core/training/feed.h"
#include "parallel/mesh.h"
#include "parallel/pipeline.h"
#include "parallel/reduction.h"

namespace shoestring {

/// Sums over the whole global batch: the same bits on every rank and for any number of ranks.
struct PassResult {
  bool abandoned = false;   ///< `stop` said so: nothing else here holds, nor do the gradients
  double loss = 0;          ///< nats, over trained tokens
  double tokens = 0;        ///< trained tokens
  double further_loss = 0;  ///< of multi-token prediction, not weighted
  double further_tokens = 0;
  double balance_loss = 0;    ///< weighted
  Tensor router_counts;       ///< i64 [mixtures of the whole model, experts]; empty without experts
  PrecisionCounts precision;  ///< of activations and gradients; weights are counted when they are prepared
};

class Pass {
 public:
  /// All must outlive it. `groups` reduction groups over the data axis of `mesh`.
  Pass(Transformer& model, Mesh& mesh, int groups, Stream& stream, Meter& meter);
  ~Pass();

  /// Runs the global batch that begins after `samples` samples. Afterwards model.store().gradients holds the sum over
  /// all trained tokens, on every rank. `stop` is asked before each micro-batch that every rank has, at the same ones
  /// on all ranks and with one answer (StopAgreement); true ends the pass there. After that, and after an exception,
  /// the pass can only be destroyed.
  PassResult run(const BatchPlan& plan, std::int64_t samples, Feed& feed, const std::function<bool()>& stop = {});

 private:
  class Round;
  class PipelineStage;
  Pipeline& pipeline_of(int microbatches);
  void run_round(const BatchPlan& plan, std::int64_t samples, int round, Feed& feed, const std::function<bool()>& stop,
                 PassResult& result);
  void reduce_counts(PassResult& result);

  Transformer& model_;
  Mesh& mesh_;
  Stream& stream_;
  Meter& meter_;
  CanonicalReducer gradients_;
  ScalarReducer scalars_;
  std::vector<std::unique_ptr<MicroBatch>> spare_;      // memory of micro-batches that are not in flight
  std::unique_ptr<Round> round_;                        // while it runs
  std::vector<std::unique_ptr<PipelineStage>> stages_;  // of this rank
  std::map<int, std::unique_ptr<Pipeline>> pipelines_;  // by the number of micro-batches
};

}  // namespace shoestring
