// Where the micro-batches of a pass come from: the loader of a phase; later rollouts, and teachers that add columns.
#pragma once

#include "core/model/micro_batch.h"
#include "core/model/objective.h"
#include "core/training/batch_plan.h"
#include "data/prefetching_loader.h"

namespace shoestring {

class Feed {
 public:
  virtual ~Feed() = default;
  /// The micro-batch of these samples, valid until the next call. A rank asks in RankOrder, each range once.
  virtual BatchView next(SampleRange samples) = 0;
};

/// One rank's share of a phase, from its shards: fetched ahead by a thread of its own.
class LoaderFeed final : public Feed {
 public:
  /// From the global batch on that begins after `samples` samples. `loader` must outlive it.
  LoaderFeed(const Loader& loader, const BatchPlan& plan, std::int64_t samples, int rank, int prefetch);
  BatchView next(SampleRange samples) override;

 private:
  PrefetchingLoader batches_;
  ColumnView weights_{kWeightColumn, {}};  ///< of the last batch, where it has any
};

/// What the model reads of a loader's batch.
BatchView view_of(const Batch& batch);

}  // namespace shoestring
