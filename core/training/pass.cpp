#include "core/training/pass.h"

#include <algorithm>
#include <array>
#include <numeric>
#include <ranges>
#include <set>

#include "kernels/base/check.h"

namespace shoestring {
namespace {

constexpr std::size_t kWholeNumbers = 12;

/// Out of the pipeline in the middle of a round: no error.
struct Abandoned {};

/// The numbers of `counts` that add up over ranks.
std::array<std::int64_t*, kWholeNumbers> whole_numbers(PrecisionCounts& counts) {
  QuantizeCounts& a = counts.activations;
  QuantizeCounts& g = counts.gradients;
  QuantizeCounts& w = counts.weights;
  return {&a.elements,    &a.saturated,  &a.underflowed, &a.non_finite, &g.elements,    &g.saturated,
          &g.underflowed, &g.non_finite, &w.elements,    &w.saturated,  &w.underflowed, &w.non_finite};
}

}  // namespace

/// One run of the schedule: the micro-batches in flight, and what they add up to.
class Pass::Round {
 public:
  /// Micro-batch 0 of the schedule is the first of `group` of the global batch after `samples` samples.
  Round(Pass& pass, const BatchPlan& plan, std::int64_t samples, GroupRange group, Feed& feed, const PassStops& stops)
      : tally(pass.tally_), pass_(pass), plan_(plan), samples_(samples), group_(group), feed_(feed), stops_(stops) {
    tally.clear(pass.stream_);
  }

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

  /// Before each action: whether it only passes messages on. Ranks that exchange rows of experts need each other in an
  /// action, so they agree.
  bool hollow() {
    if (hollow_ || !stops_.own || pass_.mesh_.pipeline().size() == 1) return hollow_;
    double asked = stops_.own() ? 1 : 0;
    Communicator& experts = pass_.mesh_.expert();
    if (experts.size() > 1) experts.all_reduce(view_of(&asked, DType::f64, {1}), Reduction::max);
    hollow_ = asked != 0;
    return hollow_;
  }
  bool became_hollow() const { return hollow_; }
  double text_tokens() const { return text_tokens_; }  ///< drawn up to now
  bool is_last(int microbatch) const { return group_.begin + microbatch + 1 == group_.end; }

  StepTally& tally;

 private:
  struct Entry {
    std::unique_ptr<MicroBatch> batch;
    std::size_t released = 0;
  };
  BatchView draw(int microbatch) {
    const bool all_have_it = pass_.mesh_.pipeline().size() == 1 && microbatch < plan_.fewest_microbatches(samples_);
    if (all_have_it && stops_.all && stops_.all()) throw Abandoned{};
    const Meter::Scope waiting(pass_.meter_, Category::data_wait);
    const BatchView view = feed_.next(plan_.range(samples_, group_.begin + microbatch));
    text_tokens_ += static_cast<double>(std::ssize(view.inputs) - view.padding);
    return view;
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
  GroupRange group_;
  Feed& feed_;
  const PassStops& stops_;
  bool hollow_ = false;
  double text_tokens_ = 0;
  std::map<int, Entry> in_flight_;
};

/// A stage of the model as the pipeline calls it.
class Pass::PipelineStage final : public Stage {
 public:
  /// The parts of its gradients are those from `first_part` on.
  PipelineStage(Pass& pass, TransformerStage& stage, int first_part)
      : pass_(pass), stage_(stage), first_part_(first_part) {}

  void forward(int microbatch, ConstTensorView input, TensorView output) override {
    if (round().hollow()) return;
    const MicroBatch& batch = round().get(microbatch);
    mark();
    stage_.forward(batch, input, output, round().tally);
    mark();
  }
  void backward_input(int microbatch, ConstTensorView output_gradient, TensorView input_gradient) override {
    if (round().hollow()) return;
    mark();
    stage_.backward_input(round().get(microbatch), output_gradient, input_gradient, round().tally);
    mark();
  }
  void backward_weight(int microbatch) override {
    if (round().hollow()) return;
    std::function<void(int)> done;
    if (round().is_last(microbatch)) done = [this](int part) { pass_.gradients_.complete(first_part_ + part); };
    mark();
    stage_.backward_weight(round().get(microbatch), round().tally, done);
    mark();
    round().release(microbatch);
  }

 private:
  /// What the device was given so far ends here.
  void mark() { pass_.sent_[pass_.at_].marks.mark(pass_.stream_); }
  Round& round() const {
    check(pass_.round_ != nullptr, "a stage runs outside of a pass");
    return *pass_.round_;
  }

  Pass& pass_;
  TransformerStage& stage_;
  int first_part_;
};

namespace {

/// Backward comes to the last stage first.
std::vector<std::vector<Parameter*>> gradient_parts(const Transformer& model) {
  std::vector<std::vector<Parameter*>> parts;
  for (const auto& stage : std::views::reverse(model.stages())) {
    for (std::vector<Parameter*>& part : stage->gradient_parts()) parts.push_back(std::move(part));
  }
  return parts;
}

}  // namespace

Pass::Pass(Transformer& model, Mesh& mesh, int groups, Stream& stream, Meter& meter, ScheduleChoice schedule,
           const ParameterShards* shards)
    : model_(model),
      mesh_(mesh),
      stream_(stream),
      meter_(meter),
      groups_(groups),
      schedule_(schedule),
      tally_(model.tally()),
      gradients_(model.store(), mesh, groups, stream, shards, gradient_parts(model)),
      exchange_(model.experts().exchange) {
  int part = 0;
  for (const auto& stage : std::views::reverse(model.stages())) {
    stages_.insert(stages_.begin(), std::make_unique<PipelineStage>(*this, *stage, part));
    part += static_cast<int>(stage->gradient_parts().size());
  }
  if (exchange_ == nullptr) return;
  if (model.experts().takes_turns) exchange_->take(&turns_);
  exchange_->tell([this](bool waits) {  // of an evaluation all is evaluation
    if (round_ != nullptr) meter_.enter(waits ? Category::exposed_communication : Category::compute);
  });
}

Pass::~Pass() {
  if (exchange_ == nullptr) return;
  exchange_->tell({});
  exchange_->take(nullptr);
}

Pipeline& Pass::pipeline_of(int microbatches) {
  std::unique_ptr<Pipeline>& pipeline = pipelines_[microbatches];
  if (!pipeline) {
    std::vector<Stage*> stages;
    for (const auto& stage : stages_) stages.push_back(stage.get());
    pipeline = std::make_unique<Pipeline>(
        make_schedule(schedule_, mesh_.pipeline().size(), microbatches), mesh_.pipeline(), stages, model_.boundary(),
        [this](bool waits) { meter_.enter(waits ? Category::bubble : Category::compute); },
        [this] { return meter_.elapsed_seconds(); }, model_.experts().takes_turns ? &turns_ : nullptr);
  }
  return *pipeline;
}

// Groups are of two sizes at most. As a batch grows others come, and those go.
void Pass::make_room(const BatchPlan& plan, std::int64_t samples) {
  std::set<int> sizes;
  for (int round = 0; round < plan.rounds(); ++round) {
    const GroupRange group = plan.group(samples, round, mesh_.at().data);
    sizes.insert(static_cast<int>(group.end - group.begin));
  }
  std::erase_if(pipelines_, [&](const auto& one) { return !sizes.contains(one.first); });
  for (const int size : sizes) pipeline_of(size);
}

std::int64_t Pass::loads() const { return model_.config().mixtures() * model_.config().experts; }

// The numbers of a pass: `scalars` sums of each reduction group, counts, and how many rounds became hollow. Each of the
// sums is known to one rank (the group's, with the stage it comes from) and zero on all others, and counts are whole
// numbers: their sum over the world is exact, in whatever order it is taken. So one all-reduce tells every rank all
// there is, and what is beside.
PassResult Pass::run(const BatchPlan& plan, std::int64_t samples, Feed& feed, const PassStops& stops,
                     const std::function<std::span<double>()>& behind_gradients) {
  make_room(plan, samples);
  gradients_.reset();
  traces_.clear();
  waits_ = {};
  if (sent_.size() < static_cast<std::size_t>(plan.rounds())) sent_.resize(static_cast<std::size_t>(plan.rounds()));
  const std::size_t counts = kWholeNumbers + static_cast<std::size_t>(loads()) + 1;
  std::vector<double> numbers(static_cast<std::size_t>(groups_) * scalars() + counts, 0.0);
  try {
    for (int round = 0; round < plan.rounds(); ++round) run_round(plan, samples, round, feed, stops);
  } catch (const Abandoned&) {
    PassResult result;
    result.abandoned = true;
    return result;
  }
  const bool alone = mesh_.world().size() == 1;
  {
    const Meter::Scope exchanging(meter_, alone ? Category::compute : Category::exposed_communication);
    gradients_.gather();
  }
  std::span<double> beside;
  {
    const Meter::Scope computing(meter_, Category::compute);
    if (behind_gradients) beside = behind_gradients();
    wait_for(stream_, WaitCause::verdict, &waits_);
    receive(numbers);
  }
  if (!alone) {
    const Meter::Scope exchanging(meter_, Category::exposed_communication);
    const std::ptrdiff_t own = std::ssize(numbers);
    numbers.insert(numbers.end(), beside.begin(), beside.end());
    mesh_.world().all_reduce(view_of(numbers.data(), DType::f64, {std::ssize(numbers)}));
    std::copy(numbers.begin() + own, numbers.end(), beside.begin());
    numbers.resize(static_cast<std::size_t>(own));
  }
  PassResult result;
  if (numbers.back() == 0) {
    result = result_of(numbers);
    result.waits = waits_;
  } else {
    result.abandoned = true;
  }
  return result;
}

PassResult Pass::result_of(std::span<const double> numbers) const {
  PassResult result;
  for (int group = 0; group < groups_; ++group) {
    const std::span<const double> sums = numbers.subspan(static_cast<std::size_t>(group) * scalars(), scalars());
    result.loss += sums[0];
    result.tokens += sums[1];
    result.weight += sums[2];
    result.further_loss += sums[3];
    result.further_tokens += sums[4];
    result.text_tokens += sums[5];
    result.balance_loss += std::accumulate(sums.begin() + 6, sums.end(), 0.0);
  }
  std::span<const double> counts = numbers.subspan(static_cast<std::size_t>(groups_) * scalars());
  for (std::int64_t* value : whole_numbers(result.precision)) {
    *value = static_cast<std::int64_t>(counts.front());
    counts = counts.subspan(1);
  }
  if (loads() == 0) return result;
  result.router_counts = Tensor(DType::i64, {model_.config().mixtures(), model_.config().experts});
  std::transform(counts.begin(), counts.end() - 1, result.router_counts.as<std::int64_t>(),
                 [](double value) { return static_cast<std::int64_t>(value); });
  return result;
}

// The reduction group that this rank has in `round`.
void Pass::run_round(const BatchPlan& plan, std::int64_t samples, int round, Feed& feed, const PassStops& stops) {
  Communicator& pipeline = mesh_.pipeline();
  if (pipeline.size() > 1 && stops.all && stops.all()) throw Abandoned{};
  const GroupRange group = plan.group(samples, round, mesh_.at().data);
  const Meter::Scope computing(meter_, Category::compute);
  model_.zero_gradients();
  gradients_.begin();
  round_ = std::make_unique<Round>(*this, plan, samples, group, feed, stops);
  at_ = static_cast<std::size_t>(round);
  Sent& sent = sent_[at_];
  sent.marks.clear();
  Pipeline& run = pipeline_of(static_cast<int>(group.end - group.begin));
  run.run();
  const int number = group_of(round, mesh_.at().data, mesh_.shape().data);
  traces_.push_back({number, run.began_seconds(), run.trace()});
  sent.group = number;
  sent.hollow = round_->became_hollow();
  sent.text_tokens = pipeline.rank() == 0 ? round_->text_tokens() : 0;
  tally_.send(sent.tally, stream_);
  waits_ += tally_.waits;
  round_.reset();
  for (const Parameter* parameter : model_.store().parameters) {
    check(sent.hollow || !parameter->grad_is_stale, "{}: no weight gradient ran", parameter->slices.front().name);
  }
  const bool alone = mesh_.world().size() == 1;
  const Meter::Scope exchanging(meter_, alone ? Category::compute : Category::exposed_communication);
  const std::vector<int> owners = rank_of_stage(run.schedule());
  model_.join_shared_gradients(pipeline, owners.front(), owners.back());
  gradients_.fold();
}

void Pass::receive(std::vector<double>& numbers) {
  for (std::size_t round = 0; round < traces_.size(); ++round) {
    const Sent& sent = sent_[round];
    tally_.receive(sent.tally);
    add_numbers(sent, numbers);
    if (sent.hollow) {
      ++numbers.back();
    } else {
      take_times(sent.marks.seconds(), traces_[round].entries);
    }
  }
  if (mesh_.at().replica == 0)
    add_counts({.activations = {}, .weights = model_.weight_counts(), .gradients = {}}, numbers);
}

double* Pass::add_counts(PrecisionCounts counts, std::vector<double>& numbers) const {
  double* count = numbers.data() + static_cast<std::size_t>(groups_) * scalars();
  for (const std::int64_t* value : whole_numbers(counts)) *count++ += static_cast<double>(*value);
  return count;
}

void Pass::add_numbers(const Sent& sent, std::vector<double>& numbers) const {
  const ObjectiveSums& sums = tally_.objective;
  double* own = numbers.data() + static_cast<std::size_t>(sent.group) * scalars();
  *own++ = sums.main.loss;
  *own++ = static_cast<double>(sums.main.tokens);
  *own++ = sums.main.weight;
  *own++ = sums.further.loss;
  *own++ = static_cast<double>(sums.further.tokens);
  *own++ = sent.text_tokens;
  std::copy(tally_.balance_losses.begin(), tally_.balance_losses.end(), own);
  double* count = add_counts(tally_.precision, numbers);
  for (std::int64_t i = 0; i < loads(); ++i) {
    *count++ += static_cast<double>(tally_.expert_loads.as<std::int64_t>()[i]);
  }
}

}  // namespace shoestring
