#include "core/budget/step_cost.h"

#include <fmt/core.h>

#include <algorithm>
#include <numeric>
#include <optional>

#include "core/recipe/names.h"
#include "kernels/base/check.h"
#include "parallel/schedule_check.h"

namespace shoestring {
namespace {

// Bytes a parameter of an AdamW step reads and writes: FP32 weight and two moments both ways, the gradient, a BF16
// copy.
constexpr double kOptimizerBytes = 28;
constexpr double kReservedBytes = 2.5e9;  // context, communicators, fragments: 2 to 3 GB on NVIDIA devices
constexpr double kHiddenShare = 0.9;      // of what a cell could hide
/// Longer schedules are simulated at this many micro-batches a rank and at twice as many, and drawn out: past its
/// warm-up a schedule repeats.
constexpr int kSimulatedPerRank = 4;

struct Stage {
  LayerCost cost;
};

std::string_view schedule_word(const PlanLayout& layout) {
  if (layout.schedule == ScheduleName::one_f_one_b) return "1f1b";  // as its builder is called
  return enum_words<ScheduleName>()[static_cast<std::size_t>(layout.schedule)];
}

int stages_per_rank(const PlanLayout& layout) {
  switch (layout.schedule) {
    case ScheduleName::interleaved: return layout.chunks;
    case ScheduleName::zb_v:
    case ScheduleName::dualpipev: return 2;
    default: return 1;
  }
}

void add(LayerCost& sum, const LayerCost& cost) {
  sum.seconds += cost.seconds;
  sum.flops += cost.flops;
  sum.attention_flops += cost.attention_flops;
  sum.parameters += cost.parameters;
  sum.expert_parameters += cost.expert_parameters;
  sum.saved_bytes += cost.saved_bytes;
  sum.working_bytes = std::max(sum.working_bytes, cost.working_bytes);
}

double weight_of(const LayerCost& cost) { return cost.seconds.work() + cost.seconds.messages(); }

/// Layers in order, in `count` runs whose heaviest is as light as can be.
std::vector<Stage> deal(const std::vector<LayerCost>& layers, int count) {
  std::vector<double> weights;
  for (const LayerCost& layer : layers) weights.push_back(weight_of(layer));
  /// The runs that hold at most `most` each, as their first layers; no run stays empty: the last layers go one to each.
  const auto runs = [&](double most) {
    std::vector<std::size_t> begins = {0};
    double held = weights.front();
    for (std::size_t i = 1; i < weights.size(); ++i) {
      const bool must = weights.size() - i + begins.size() <= static_cast<std::size_t>(count);
      if (must || held + weights[i] > most) {
        begins.push_back(i);
        held = 0;
      }
      held += weights[i];
    }
    return begins;
  };
  double low = *std::max_element(weights.begin(), weights.end());
  double high = std::accumulate(weights.begin(), weights.end(), 0.0);
  constexpr int kHalvings = 30;
  for (int i = 0; i < kHalvings; ++i) {
    const double middle = (low + high) / 2;
    (runs(middle).size() <= static_cast<std::size_t>(count) ? high : low) = middle;
  }
  std::vector<std::size_t> begins = runs(high);
  begins.push_back(layers.size());
  std::vector<Stage> stages(begins.size() - 1);
  for (std::size_t stage = 0; stage < stages.size(); ++stage) {
    for (std::size_t i = begins[stage]; i < begins[stage + 1]; ++i) add(stages[stage].cost, layers[i]);
  }
  return stages;
}

class StepPlanner {
 public:
  StepPlanner(const StepQuestion& question, const Hardware& hardware, const Stack& stack, Detail detail)
      : question_(question),
        layout_(question.layout),
        detail_(detail),
        operations_(hardware, stack),
        messages_(hardware, layout_.devices),
        costs_(question.model, question.precision, layout_, question.sequence, operations_, messages_) {
    const ModelConfig& config = question.model.config;
    const LayerCost dense = costs_.dense();
    const LayerCost mixture = config.experts > 0 ? costs_.mixture() : dense;
    for (std::int64_t i = 0; i < config.layers; ++i) layers_.push_back(config.mixture(i) ? mixture : dense);
    LayerCost last = costs_.head();
    for (std::int64_t i = 0; i < config.mtp_layers; ++i) {
      LayerCost further = config.mixture(config.layers) ? mixture : dense;
      add(further, costs_.join());
      LayerCost head = costs_.head();
      head.parameters = 0;  // shared with the main model's
      add(further, head);
      layers_.push_back(further);
    }
    if (config.tie_embeddings) last.parameters = 0;
    layers_.push_back(last);
    layers_.front().parameters += costs_.embedding_parameters();
  }

  StepEstimate run() {
    StepEstimate estimate;
    const std::vector<Stage> stages = deal(layers_, layout_.pipeline * stages_per_rank(layout_));
    if (layout_.pipeline == 1) {
      estimate.seconds = whole_model();
    } else {
      estimate.seconds = pipelined(stages);
    }
    add_end_of_step(stages, estimate.seconds);
    estimate.memory = memory(stages);
    estimate.tokens = costs_.tokens() * layout_.context * layout_.micro_batches * layout_.data();
    const double micro_batches = static_cast<double>(layout_.micro_batches) * layout_.data() * layout_.context;
    for (const LayerCost& layer : layers_) {
      estimate.flops += 3 * layer.flops * layout_.tensor * micro_batches;
      estimate.attention_flops += 3 * layer.attention_flops * layout_.tensor * micro_batches;
      estimate.parameters += layer.parameters * layout_.tensor + layer.expert_parameters * layout_.expert;
    }
    return estimate;
  }

 private:
  DeviceGroup data_group() const { return {layout_.data() * layout_.context, layout_.tensor}; }

  /// Seconds of `layers` passed one after the other: no schedule, shards gathered layer by layer.
  StepParts whole_model() const {
    StepParts step;
    const double interference = operations_.stack().sharding_interference;
    for (const LayerCost& layer : layers_) {
      const LayerSeconds& s = layer.seconds;
      step.compute += s.forward + s.backward_input + s.backward_weight;
      step.recompute += s.again;
      step.tensor += s.tensor_forward + s.tensor_backward;
      step.expert += s.exchange_forward + s.exchange_backward;
      if (layout_.sharding != Sharding::full) continue;
      // Gathered for forward and again for backward, gradients scattered: each hides behind the layer's own work.
      constexpr double kBytes = 2;
      const double gather = messages_.gather_seconds(data_group(), layer.parameters * kBytes);
      const double forward = s.forward + s.tensor_forward;
      const double backward = weight_of(layer) - forward;
      step.data += std::max(0.0, gather - forward) + std::max(0.0, 2 * gather - backward);
      step.data += interference * 3 * std::min(gather, (forward + backward) / 3);
    }
    for (double StepParts::*part :
         {&StepParts::compute, &StepParts::recompute, &StepParts::tensor, &StepParts::expert, &StepParts::data}) {
      step.*part *= layout_.micro_batches;
    }
    return step;
  }

  StepParts pipelined(const std::vector<Stage>& stages) const {
    // The simulator takes one time per kind of action and a factor per stage.
    const auto count = static_cast<double>(stages.size());
    LayerSeconds mean;
    std::vector<double> factors;
    double total = 0;
    for (const Stage& stage : stages) {
      mean += stage.cost.seconds;
      factors.push_back(weight_of(stage.cost));
      total += factors.back();
    }
    for (double& factor : factors) factor *= count / total;
    ActionTimes times;
    times.forward = (mean.forward + mean.tensor_forward + mean.exchange_forward) / count;
    times.backward_input = (mean.backward_input + mean.again + mean.tensor_backward + mean.exchange_backward) / count;
    times.backward_weight = mean.backward_weight / count;
    times.per_stage = factors;
    const double bytes = costs_.tokens() * static_cast<double>(question_.model.config.hidden) * 2 /
                         (layout_.sequence_parallel ? layout_.tensor : 1);
    times.transfer = messages_.send_seconds(layout_.tensor * layout_.context * layout_.data(), bytes);
    const double exchanged = mean.exchange_forward + mean.exchange_backward;
    const double cell = mean.work() + mean.messages();
    if (layout_.schedule == ScheduleName::dualpipev && cell > 0) {
      times.cell_hidden = kHiddenShare * std::min(exchanged, cell - exchanged) / cell;
    }
    const auto [makespan, busy] = simulate(times);
    StepParts step;
    // Of the busiest rank's time, shares as the stages have them; hidden exchange is in none.
    const double all = busy;
    const double exposed_exchange = std::max(0.0, exchanged / cell * per_rank_sum(total) - (per_rank_sum(total) - all));
    const double rest = all - exposed_exchange;
    const double rest_sum = cell - exchanged;
    step.expert = exposed_exchange;
    step.compute = rest * (mean.forward + mean.backward_input + mean.backward_weight) / rest_sum;
    step.recompute = rest * mean.again / rest_sum;
    step.tensor = rest * (mean.tensor_forward + mean.tensor_backward) / rest_sum;
    step.bubble = makespan - busy;
    return step;
  }

  /// Work and messages of one rank in a step, nothing hidden.
  double per_rank_sum(double all_stages) const { return all_stages / layout_.pipeline * layout_.micro_batches; }

  struct Simulated {
    double makespan = 0;
    double busy = 0;  ///< mean over ranks
  };

  Simulated simulate_at(const ActionTimes& times, int micro_batches) const {
    const Schedule schedule =
        make_schedule(schedule_word(layout_), {layout_.pipeline, micro_batches, stages_per_rank(layout_)});
    const Prediction prediction = predict(schedule, times);
    const double busy = std::accumulate(prediction.busy.begin(), prediction.busy.end(), 0.0);
    return {prediction.makespan, busy / layout_.pipeline};
  }

  Simulated simulate(const ActionTimes& times) const {
    if (detail_ == Detail::unwaiting) {
      const double sum = times.forward + times.backward_input + times.backward_weight;
      const double busy = sum * stages_per_rank(layout_) * layout_.micro_batches * (1 - times.cell_hidden);
      return {busy, busy};
    }
    const int few = kSimulatedPerRank * layout_.pipeline;
    if (layout_.micro_batches <= 2 * few) return simulate_at(times, layout_.micro_batches);
    const Simulated first = simulate_at(times, few);
    const Simulated second = simulate_at(times, 2 * few);
    const double further = static_cast<double>(layout_.micro_batches - 2 * few) / few;
    return {second.makespan + further * (second.makespan - first.makespan),
            second.busy + further * (second.busy - first.busy)};
  }

  /// What the stages of one rank hold, of the rank that holds most.
  LayerCost fullest(const std::vector<Stage>& stages) const {
    LayerCost most;
    for (int rank = 0; rank < layout_.pipeline; ++rank) {
      LayerCost held;
      for (std::size_t i = 0; i < stages.size(); ++i) {
        if (rank_of(static_cast<int>(i), static_cast<int>(stages.size())) == rank) add(held, stages[i].cost);
      }
      if (held.parameters + held.expert_parameters > most.parameters + most.expert_parameters) most = held;
    }
    return most;
  }

  int rank_of(int stage, int stages) const {
    const bool v_shaped = layout_.schedule == ScheduleName::zb_v || layout_.schedule == ScheduleName::dualpipev;
    if (v_shaped && stage >= stages / 2) return std::min(stages - 1 - stage, layout_.pipeline - 1);
    return stage % layout_.pipeline;
  }

  void add_end_of_step(const std::vector<Stage>& stages, StepParts& step) const {
    const LayerCost held = fullest(stages);
    const double replicas = layout_.data() * layout_.context;
    const double expert_replicas = replicas * layout_.tensor / layout_.expert;
    const bool sharded = layout_.sharding != Sharding::none;
    const double own =
        held.parameters / (sharded ? replicas : 1) + held.expert_parameters / (sharded ? expert_replicas : 1);
    step.optimizer += operations_.traffic_seconds(own * kOptimizerBytes);
    if (layout_.sharding == Sharding::full && layout_.pipeline == 1) return;
    // FP32 gradients are summed where they are kept, BF16 weights come back.
    constexpr double kBytes = 4 + 2;
    const double dense = messages_.gather_seconds(data_group(), held.parameters * kBytes);
    const DeviceGroup replica{static_cast<int>(expert_replicas), layout_.expert};
    const double experts = messages_.gather_seconds(replica, held.expert_parameters * kBytes);
    step.data += (dense + experts) * operations_.stack().gradient_exposed;
  }

  DeviceMemory memory(const std::vector<Stage>& stages) const {
    const LayerCost held = fullest(stages);
    const double replicas = layout_.data() * layout_.context;
    const double expert_replicas = replicas * layout_.tensor / layout_.expert;
    const bool states = layout_.sharding != Sharding::none;
    const bool all = layout_.sharding == Sharding::full;
    const auto kept = [&](bool sharded) {
      return held.parameters / (sharded ? replicas : 1) + held.expert_parameters / (sharded ? expert_replicas : 1);
    };
    DeviceMemory memory;
    constexpr double kMaster = 4;
    constexpr double kCopy = 2;
    const double moment = question_.precision.moments == MomentFormat::bf16 ? 2 : 4;
    const bool plain =
        question_.precision.policy == PrecisionPolicy::fp32 || question_.precision.policy == PrecisionPolicy::fp64;
    memory.weights = kept(states) * kMaster + (plain ? 0 : kept(all) * kCopy);
    memory.gradients = kept(all) * (all ? kCopy : kMaster);
    memory.moments = 2 * moment * kept(states);
    memory.activations = held.saved_bytes * in_flight();
    memory.working = held.working_bytes;
    if (all) memory.working += 2 * kCopy * (held.parameters / static_cast<double>(layers_.size()));
    memory.reserved = operations_.hardware().devices_per_node > 0 ? kReservedBytes : 0;
    return memory;
  }

  /// Micro-batches whose activations the fullest rank keeps, over all its stages.
  double in_flight() const {
    if (layout_.pipeline == 1) return 1;
    if (detail_ == Detail::unwaiting) return std::min(layout_.pipeline, layout_.micro_batches);
    const int per_rank = stages_per_rank(layout_);
    const int simulated = std::min(layout_.micro_batches, kSimulatedPerRank * layout_.pipeline);
    const ScheduleReport report =
        check_schedule(make_schedule(schedule_word(layout_), {layout_.pipeline, simulated, per_rank}));
    const auto& peaks = report.peak_until_backward_weight;
    return static_cast<double>(*std::max_element(peaks.begin(), peaks.end())) / per_rank;
  }

  const StepQuestion& question_;
  const PlanLayout& layout_;
  Detail detail_;
  OperationCost operations_;
  CommunicationCost messages_;
  LayerCosts costs_;
  std::vector<LayerCost> layers_;  ///< in order, multi-token prediction and the head last
};

}  // namespace

std::string impossible(const StepQuestion& question) {
  const PlanLayout& layout = question.layout;
  const ModelConfig& config = question.model.config;
  const auto divides = [](std::int64_t part, std::int64_t whole) { return part > 0 && whole % part == 0; };
  const int cut = layout.tensor * layout.context * layout.pipeline;
  if (!divides(cut, layout.devices)) {
    return fmt::format("tensor {} x context {} x pipeline {} does not divide {} devices", layout.tensor, layout.context,
                       layout.pipeline, layout.devices);
  }
  if (layout.expert > 1 && config.experts == 0) return "expert parallelism needs a mixture of experts";
  if (layout.expert > 1 && !divides(layout.expert, config.experts)) {
    return fmt::format("expert {} does not divide the model's {} experts", layout.expert, config.experts);
  }
  const int of_a_stage = layout.devices / layout.pipeline;
  if (!divides(layout.expert, of_a_stage)) {
    return fmt::format("expert {} does not divide the {} devices of a stage", layout.expert, of_a_stage);
  }
  if (!divides(layout.tensor, config.heads)) {
    return fmt::format("tensor {} does not divide the model's {} heads", layout.tensor, config.heads);
  }
  const int stages = layout.pipeline * stages_per_rank(layout);
  if (layout.pipeline > 1 && stages > config.layers + config.mtp_layers + 1) {
    return fmt::format("{} stages, but {} layers", stages, config.layers);
  }
  if (layout.pipeline == 1) return {};
  for (const ScheduleBuilder& builder : schedule_builders()) {
    if (builder.name != schedule_word(layout)) continue;
    const std::string refusal = builder.refuses({layout.pipeline, layout.micro_batches, stages_per_rank(layout)});
    if (!refusal.empty()) return fmt::format("{}: {}", builder.name, refusal);
  }
  return {};
}

StepEstimate estimate_step(const StepQuestion& question, const Hardware& hardware, const Stack& stack, Detail detail) {
  const std::string reason = impossible(question);
  if (!reason.empty()) fail(ExitCode::bad_recipe, "the layout ({}) cannot be: {}", to_string(question.layout), reason);
  return StepPlanner(question, hardware, stack, detail).run();
}

}  // namespace shoestring
