// The gradient of one global batch: every micro-batch through the pipeline, then the canonical reduction over ranks.
#pragma once

#include <map>
#include <memory>
#include <vector>

#include "core/budget/meter.h"
#include "core/model/transformer.h"
#include "core/training/batch_plan.h"
#include "data/prefetching_loader.h"
#include "parallel/pipeline.h"
#include "parallel/reduction.h"

namespace shoestring {

/// Sums over the whole global batch: the same bits on every rank and for any number of ranks.
struct BatchResult {
  double loss = 0;          ///< nats, over trained tokens
  double tokens = 0;        ///< trained tokens
  double further_loss = 0;  ///< of multi-token prediction, not weighted
  double further_tokens = 0;
  double balance_loss = 0;  ///< weighted
  Tensor router_counts;     ///< i64 [mixtures, experts]; empty without experts
  PrecisionCounts precision;
};

class BatchGradient {
 public:
  /// All must outlive it. `groups` reduction groups over the ranks of `world`.
  BatchGradient(Transformer& model, Communicator& world, int groups, Stream& stream, Meter& meter);

  /// Computes the global batch that begins after `samples` samples; `batches` delivers this rank's micro-batches in
  /// RankOrder. Afterwards model.store().gradients holds the sum over all trained tokens, on every rank.
  BatchResult compute(const BatchPlan& plan, std::int64_t samples, PrefetchingLoader& batches);

 private:
  /// The schedule for a number of micro-batches, with its runtime.
  struct Run {
    Schedule schedule;
    std::unique_ptr<Pipeline> pipeline;
  };
  Run& run_of(int microbatches);
  void add_counts(BatchResult& result);

  Transformer& model_;
  Communicator& world_;
  Stream& stream_;
  Meter& meter_;
  std::unique_ptr<Communicator> pipeline_ranks_;
  CanonicalReducer gradients_;
  ScalarReducer scalars_;
  std::map<int, Run> runs_;
};

}  // namespace shoestring
