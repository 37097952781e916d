#include "core/training/feed.h"

#include <optional>

#include "kernels/base/check.h"

namespace shoestring {
namespace {

constexpr double kLongWait = 1;  // seconds

}  // namespace

LoaderFeed::LoaderFeed(const Loader& loader, const BatchPlan& plan, std::int64_t samples, int rank, int prefetch,
                       StorageHooks hooks, StorageNews* news)
    : loader_(loader),
      hooks_(std::move(hooks)),
      news_(news),
      batches_(loader,
               [order = RankOrder(plan, samples, rank)]() mutable { return std::optional<SampleRange>(order.next()); },
               prefetch, make_thread, {.waits = [this](double seconds) { wait(seconds); }, .late = hooks_.say}) {}

LoaderFeed::~LoaderFeed() { loader_.stop_waiting(); }

BatchView LoaderFeed::next(SampleRange samples) {
  const Batch* batch = batches_.next();
  tell();
  if (std::exchange(waits_long_, false) && hooks_.goes_on) hooks_.goes_on();
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

void LoaderFeed::wait(double seconds) {
  tell();
  if (seconds < kLongWait) return;
  waits_long_ = true;
  if (hooks_.waits) hooks_.waits();
}

void LoaderFeed::tell() {
  if (news_ == nullptr || !hooks_.say) return;
  for (const std::string& line : news_->take()) hooks_.say(line);
}

BatchView view_of(const Batch& batch) {
  return {.inputs = batch.inputs,
          .targets = batch.targets,
          .segment_start = batch.segment_start,
          .sequence = batch.sequence,
          .padding = batch.padding_inputs};
}

}  // namespace shoestring
