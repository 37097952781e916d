#include "core/training/pass.h"

#include <array>

#include "kernels/base/check.h"

namespace shoestring {
namespace {

constexpr int kScalars = 5;

/// Out of the pipeline in the middle of a round: no error.
struct Abandoned {};

/// The numbers of `counts` that add up over ranks.
std::array<std::int64_t*, 8> whole_numbers(PrecisionCounts& counts) {
  QuantizeCounts& a = counts.activations;
  QuantizeCounts& g = counts.gradients;
  return {&a.elements, &a.saturated, &a.underflowed, &a.non_finite,
          &g.elements, &g.saturated, &g.underflowed, &g.non_finite};
}

}  // namespace

/// One run of the schedule: the micro-batches in flight, and what they add up to.
class Pass::Round {
 public:
  /// Micro-batch 0 of the schedule is `first` of the global batch after `samples` samples.
  Round(Pass& pass, const BatchPlan& plan, std::int64_t samples, std::int64_t first, Feed& feed,
        const std::function<bool()>& stop)
      : tally(pass.model_.tally()),
        pass_(pass),
        plan_(plan),
        samples_(samples),
        first_(first),
        feed_(feed),
        stop_(stop) {}

  /// Drawn from the feed by whoever asks first.
  const MicroBatch& get(int microbatch) {
    Entry& entry = in_flight_[microbatch];
    if (!entry.batch) {
      entry.batch = take_spare();
      entry.batch->fill(draw(microbatch), microbatch, pass_.stream_);
    }
    return *entry.batch;
  }
  /// By every stage of this rank once.
  void release(int microbatch) {
    const auto it = in_flight_.find(microbatch);
    check(it != in_flight_.end(), "micro-batch {} is released but not in flight", microbatch);
    if (++it->second.released < pass_.stages_.size()) return;
    pass_.spare_.push_back(std::move(it->second.batch));
    in_flight_.erase(it);
  }

  StepTally tally;

 private:
  struct Entry {
    std::unique_ptr<MicroBatch> batch;
    std::size_t released = 0;
  };
  BatchView draw(int microbatch) {
    if (stop_ && microbatch < plan_.fewest_microbatches(samples_) && stop_()) throw Abandoned{};
    const Meter::Scope waiting(pass_.meter_, Category::data_wait);
    return feed_.next(plan_.range(samples_, first_ + microbatch));
  }
  std::unique_ptr<MicroBatch> take_spare() {
    if (pass_.spare_.empty()) return pass_.model_.make_micro_batch();
    std::unique_ptr<MicroBatch> batch = std::move(pass_.spare_.back());
    pass_.spare_.pop_back();
    return batch;
  }

  Pass& pass_;
  const BatchPlan& plan_;
  std::int64_t samples_;
  std::int64_t first_;
  Feed& feed_;
  const std::function<bool()>& stop_;
  std::map<int, Entry> in_flight_;
};

/// A stage of the model as the pipeline calls it.
class Pass::PipelineStage final : public Stage {
 public:
  PipelineStage(const Pass& pass, TransformerStage& stage) : pass_(pass), stage_(stage) {}

  void forward(int microbatch, ConstTensorView input, TensorView output) override {
    stage_.forward(round().get(microbatch), input, output, round().tally);
  }
  void backward_input(int microbatch, ConstTensorView output_gradient, TensorView input_gradient) override {
    stage_.backward_input(round().get(microbatch), output_gradient, input_gradient, round().tally);
  }
  void backward_weight(int microbatch) override {
    stage_.backward_weight(round().get(microbatch), round().tally);
    round().release(microbatch);
  }

 private:
  Round& round() const {
    check(pass_.round_ != nullptr, "a stage runs outside of a pass");
    return *pass_.round_;
  }

  const Pass& pass_;
  TransformerStage& stage_;
};

Pass::Pass(Transformer& model, Mesh& mesh, int groups, Stream& stream, Meter& meter)
    : model_(model),
      mesh_(mesh),
      stream_(stream),
      meter_(meter),
      gradients_(mesh.data(), model.store().gradients.shape().elements(), groups / mesh.data().size(),
                 model.store().gradients.dtype(), stream),
      scalars_(mesh.data(), kScalars) {
  for (const auto& stage : model.stages()) stages_.push_back(std::make_unique<PipelineStage>(*this, *stage));
}

Pass::~Pass() = default;

Pipeline& Pass::pipeline_of(int microbatches) {
  std::unique_ptr<Pipeline>& pipeline = pipelines_[microbatches];
  if (!pipeline) {
    std::vector<Stage*> stages;
    for (const auto& stage : stages_) stages.push_back(stage.get());
    const int count = static_cast<int>(stages.size());
    pipeline = std::make_unique<Pipeline>(
        make_schedule("1f1b", {.ranks = 1, .microbatches = microbatches, .stages_per_rank = count}), mesh_.pipeline(),
        stages, model_.boundary());
  }
  return *pipeline;
}

PassResult Pass::run(const BatchPlan& plan, std::int64_t samples, Feed& feed, const std::function<bool()>& stop) {
  gradients_.reset();
  scalars_.reset();
  PassResult result;
  try {
    for (int round = 0; round < plan.rounds(); ++round) run_round(plan, samples, round, feed, stop, result);
  } catch (const Abandoned&) {
    result.abandoned = true;
    return result;
  }
  const Meter::Scope exchanging(meter_, mesh_.world().size() > 1 ? Category::exposed_communication : Category::compute);
  gradients_.gather(model_.store().gradients);
  const std::span<const double> totals = scalars_.totals();
  result.loss = totals[0];
  result.tokens = totals[1];
  result.further_loss = totals[2];
  result.further_tokens = totals[3];
  result.balance_loss = totals[4];
  reduce_counts(result);
  return result;
}

// The reduction group that this rank has in `round`; its whole numbers are added to `result`.
void Pass::run_round(const BatchPlan& plan, std::int64_t samples, int round, Feed& feed,
                     const std::function<bool()>& stop, PassResult& result) {
  const GroupRange group = plan.group(samples, round, mesh_.at().data);
  const Meter::Scope computing(meter_, Category::compute);
  model_.zero_gradients();
  round_ = std::make_unique<Round>(*this, plan, samples, group.begin, feed, stop);
  pipeline_of(static_cast<int>(group.end - group.begin)).run();
  StepTally tally = std::move(round_->tally);
  round_.reset();
  for (const Parameter* parameter : model_.store().parameters) {
    check(!parameter->grad_is_stale, "{}: no weight gradient ran", parameter->slices.front().name);
  }
  const ObjectiveSums& sums = tally.objective;
  const std::array<double, kScalars> values = {sums.main.loss, static_cast<double>(sums.main.tokens), sums.further.loss,
                                               static_cast<double>(sums.further.tokens), tally.balance_loss()};
  result.precision += tally.precision;
  if (result.router_counts.empty()) {
    result.router_counts = std::move(tally.expert_loads);
  } else {
    std::int64_t* counts = result.router_counts.as<std::int64_t>();
    const std::int64_t* more = tally.expert_loads.as<std::int64_t>();
    for (std::int64_t i = 0; i < tally.expert_loads.shape().elements(); ++i) counts[i] += more[i];
  }
  const Meter::Scope exchanging(meter_, mesh_.world().size() > 1 ? Category::exposed_communication : Category::compute);
  gradients_.fold(model_.store().gradients);
  scalars_.fold(values);
}

// Whole numbers: their sum over ranks is exact in any order.
void Pass::reduce_counts(PassResult& result) {
  if (mesh_.data().size() == 1) return;
  const auto precision = whole_numbers(result.precision);
  const std::int64_t loads = result.router_counts.empty() ? 0 : result.router_counts.shape().elements();
  std::vector<double> flat;
  for (const std::int64_t* value : precision) flat.push_back(static_cast<double>(*value));
  for (std::int64_t i = 0; i < loads; ++i) {
    flat.push_back(static_cast<double>(result.router_counts.as<std::int64_t>()[i]));
  }
  mesh_.data().all_reduce(view_of(flat.data(), DType::f64, {static_cast<std::int64_t>(flat.size())}));
  std::size_t at = 0;
  for (std::int64_t* value : precision) *value = static_cast<std::int64_t>(flat[at++]);
  for (std::int64_t i = 0; i < loads; ++i) {
    result.router_counts.as<std::int64_t>()[i] = static_cast<std::int64_t>(flat[at++]);
  }
}

}  // namespace shoestring
