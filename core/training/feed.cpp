#include "core/training/feed.h"

#include <optional>

#include "kernels/base/check.h"

namespace shoestring {

LoaderFeed::LoaderFeed(const Loader& loader, const BatchPlan& plan, std::int64_t samples, int rank, int prefetch)
    : batches_(
          loader,
          [order = RankOrder(plan, samples, rank)]() mutable { return std::optional<SampleRange>(order.next()); },
          prefetch) {}

BatchView LoaderFeed::next(SampleRange samples) {
  const Batch* batch = batches_.next();
  check(batch != nullptr && batch->first_sample == samples.first && batch->samples == samples.count,
        "the loader is at sample {}, the pass asks for {} from {}", batch != nullptr ? batch->first_sample : -1,
        samples.count, samples.first);
  BatchView view = view_of(*batch);
  if (!batch->weights.empty()) {
    weights_.values = batch->weights;
    view.columns = std::span(&weights_, 1);
  }
  return view;
}

BatchView view_of(const Batch& batch) {
  return {.inputs = batch.inputs,
          .targets = batch.targets,
          .segment_start = batch.segment_start,
          .sequence = batch.sequence};
}

}  // namespace shoestring
