#include "core/training/batch_gradient.h"

#include <array>

#include "kernels/base/check.h"

namespace shoestring {
namespace {

constexpr int kScalars = 5;

BatchView view_of(const Batch& batch) {
  return {.inputs = batch.inputs,
          .targets = batch.targets,
          .segment_start = batch.segment_start,
          .sequence = batch.sequence};
}

}  // namespace

BatchGradient::BatchGradient(Transformer& model, Communicator& world, int groups, Stream& stream, Meter& meter)
    : model_(model),
      world_(world),
      stream_(stream),
      meter_(meter),
      pipeline_ranks_(self_communicator()),
      gradients_(world, model.store().gradients.shape().elements(), groups / world.size(),
                 model.store().gradients.dtype(), stream),
      scalars_(world, kScalars) {}

BatchGradient::Run& BatchGradient::run_of(int microbatches) {
  Run& run = runs_[microbatches];
  if (!run.pipeline) {
    run.schedule = make_schedule("1f1b", {.ranks = 1, .microbatches = microbatches, .stages_per_rank = 1});
    run.pipeline = std::make_unique<Pipeline>(run.schedule, *pipeline_ranks_, model_.stages(), model_.boundary());
  }
  return run;
}

BatchResult BatchGradient::compute(const BatchPlan& plan, std::int64_t samples, PrefetchingLoader& batches) {
  gradients_.reset();
  scalars_.reset();
  model_.clear_router_counts();
  for (int round = 0; round < plan.rounds(); ++round) {
    const GroupRange group = plan.group(samples, round, world_.rank());
    model_.set_source([&](int microbatch) {
      const Meter::Scope waiting(meter_, Category::data_wait);
      const Batch* batch = batches.next();
      const SampleRange expected = plan.range(samples, group.begin + microbatch);
      check(batch != nullptr && batch->first_sample == expected.first, "micro-batch {} should begin at sample {}",
            microbatch, expected.first);
      return view_of(*batch);
    });
    const Meter::Scope computing(meter_, Category::compute);
    model_.zero_gradients();
    run_of(static_cast<int>(group.end - group.begin)).pipeline->run();
    for (const Parameter* parameter : model_.store().parameters) {
      check(!parameter->grad_is_stale, "{}: no weight gradient ran", parameter->slices.front().name);
    }
    const LossSums losses = model_.take_losses();
    const std::array<double, kScalars> values = {losses.main.loss, static_cast<double>(losses.main.tokens),
                                                 losses.further.loss, static_cast<double>(losses.further.tokens),
                                                 model_.take_balance_loss()};
    const Meter::Scope exchanging(meter_, world_.size() > 1 ? Category::exposed_communication : Category::compute);
    gradients_.fold(model_.store().gradients);
    scalars_.fold(values);
  }
  const Meter::Scope exchanging(meter_, world_.size() > 1 ? Category::exposed_communication : Category::compute);
  gradients_.gather(model_.store().gradients);
  const std::span<const double> totals = scalars_.totals();
  BatchResult result;
  result.loss = totals[0];
  result.tokens = totals[1];
  result.further_loss = totals[2];
  result.further_tokens = totals[3];
  result.balance_loss = totals[4];
  add_counts(result);
  return result;
}

// Whole numbers: their sum over ranks is exact in any order.
void BatchGradient::add_counts(BatchResult& result) {
  result.precision = model_.take_precision_counts();
  const TensorView counts = model_.router_counts();
  if (!counts.empty()) {
    result.router_counts = Tensor(DType::i64, counts.shape);
    for (std::int64_t i = 0; i < counts.elements(); ++i) {
      result.router_counts.as<std::int64_t>()[i] = counts.as<std::int64_t>()[i];
    }
  }
  if (world_.size() == 1) return;
  std::vector<double> flat;
  for (QuantizeCounts* part : {&result.precision.activations, &result.precision.weights, &result.precision.gradients}) {
    for (const std::int64_t value : {part->elements, part->saturated, part->underflowed, part->non_finite}) {
      flat.push_back(static_cast<double>(value));
    }
  }
  for (std::int64_t i = 0; i < counts.elements() && !counts.empty(); ++i) {
    flat.push_back(static_cast<double>(counts.as<std::int64_t>()[i]));
  }
  world_.all_reduce(shoestring::view_of(flat.data(), DType::f64, {static_cast<std::int64_t>(flat.size())}));
  std::size_t at = 0;
  for (QuantizeCounts* part : {&result.precision.activations, &result.precision.weights, &result.precision.gradients}) {
    for (std::int64_t* value : {&part->elements, &part->saturated, &part->underflowed, &part->non_finite}) {
      *value = static_cast<std::int64_t>(flat[at++]);
    }
  }
  for (std::int64_t i = 0; i < counts.elements() && !counts.empty(); ++i) {
    result.router_counts.as<std::int64_t>()[i] = static_cast<std::int64_t>(flat[at++]);
  }
}

}  // namespace shoestring
