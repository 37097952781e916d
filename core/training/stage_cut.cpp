#include "core/training/stage_cut.h"

#include <fmt/core.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <limits>
#include <numeric>

#include "kernels/base/check.h"
#include "kernels/base/copy.h"
#include "kernels/base/random.h"
#include "parallel/pipeline.h"

namespace shoestring {
namespace {

constexpr int kRepeats = 3;  // after one that warms up; the least counts

std::size_t index(std::int64_t value) { return static_cast<std::size_t>(value); }

/// Tokens at random, one document a sequence, as many as a micro-batch has at most.
class MadeBatch {
 public:
  MadeBatch(const ModelConfig& config, const RunShape& run, const std::vector<TokenColumn>& columns)
      : sequence_(run.tokens / run.sequences) {
    const Random random(0, Purpose::weight_init);
    const std::int64_t tokens = sequence_ * run.sequences;
    for (std::int64_t t = 0; t < tokens; ++t) {
      const auto id = random.below(static_cast<std::uint64_t>(t), static_cast<std::uint64_t>(config.vocabulary));
      inputs_.push_back(static_cast<std::int32_t>(id));
      segment_start_.push_back(static_cast<std::int32_t>(t / sequence_ * sequence_));
    }
    for (const TokenColumn& column : columns) {
      values_.emplace_back(index(tokens * column.width), 1.0F);
      columns_.push_back({column.name, values_.back()});
    }
  }
  BatchView view() const { return {inputs_, inputs_, segment_start_, sequence_, columns_}; }

 private:
  std::int64_t sequence_;
  std::vector<std::int32_t> inputs_, segment_start_;
  std::vector<std::vector<float>> values_;
  std::vector<ColumnView> columns_;
};

/// What comes into a stage from its neighbours: normal, of deviation 1.
Tensor made_values(const Boundary& boundary, Stream& stream) {
  Tensor values(DType::f32, boundary.shape);
  const Random random(1, Purpose::weight_init);
  for (std::int64_t i = 0; i < boundary.shape.elements(); ++i) {
    values.as<float>()[i] = static_cast<float>(random.normal(static_cast<std::uint64_t>(i)));
  }
  if (boundary.dtype == DType::f32 && boundary.device.kind == DeviceKind::cpu) return values;
  Tensor there(DType::f32, boundary.shape, boundary.device);
  copy(there, values, stream);
  Tensor converted(boundary.dtype, boundary.shape, boundary.device);
  if (boundary.dtype == DType::f32) {
    copy(converted, there, stream);
  } else {
    convert_tensor(converted, there, stream);
  }
  stream.synchronize();
  return converted;
}

/// Of stage `stage` where every layer is one and the end is the last.
double seconds_of(const TransformerOptions& whole, int stage, std::uint64_t seed, Stream& stream) {
  TransformerOptions options = whole;
  options.stage_layers.assign(index(whole.model.layers), 1);
  options.stage_layers.push_back(0);
  options.stages = static_cast<int>(options.stage_layers.size());
  options.own_stages = {stage};
  options.in_flight = {1};
  options.experts = {};
  Transformer model(std::move(options));
  model.allocate(stream);
  model.initialise(seed);
  model.prepare();
  model.zero_gradients();
  const std::unique_ptr<MicroBatch> batch = model.make_micro_batch();
  const NextToken next_token(whole.model.mtp_weight);
  const Objective& objective = whole.objective != nullptr ? *whole.objective : next_token;
  batch->fill(MadeBatch(whole.model, whole.run, objective.columns()).view(), 0, stream);

  const Boundary boundary = model.boundary();
  const Tensor in = made_values(boundary, stream);
  Tensor out(boundary.dtype, boundary.shape, boundary.device);
  const bool first = stage == 0;
  const bool last = stage == whole.model.layers;
  double least = std::numeric_limits<double>::infinity();
  for (int i = 0; i <= kRepeats; ++i) {
    StepTally tally = model.tally();
    const double begin = Pipeline::steady_seconds();
    TransformerStage& at = *model.stages().front();
    at.forward(*batch, first ? ConstTensorView() : in.view(), last ? TensorView() : out.view(), tally);
    at.backward_input(*batch, last ? ConstTensorView() : in.view(), first ? TensorView() : out.view(), tally);
    at.backward_weight(*batch, tally);
    stream.synchronize();
    if (i > 0) least = std::min(least, Pipeline::steady_seconds() - begin);
  }
  return least;
}

/// value[runs][items]: the least that join(rest, last run) makes of the first `items` weights in `runs` runs, none
/// empty; and where the last run begins.
struct Cuts {
  std::vector<std::vector<double>> value;
  std::vector<std::vector<std::size_t>> begin;
};

template <class Join>
Cuts best_cuts(const std::vector<double>& weights, std::size_t runs, const Join& join) {
  std::vector<double> before(weights.size() + 1, 0.0);
  std::partial_sum(weights.begin(), weights.end(), before.begin() + 1);
  const double none = std::numeric_limits<double>::infinity();
  Cuts cuts{.value = {runs + 1, std::vector<double>(before.size(), none)},
            .begin = {runs + 1, std::vector<std::size_t>(before.size(), 0)}};
  cuts.value[0][0] = 0;
  for (std::size_t run = 1; run <= runs; ++run) {
    for (std::size_t items = run; items < before.size(); ++items) {
      for (std::size_t from = run - 1; from < items; ++from) {
        const double value = join(cuts.value[run - 1][from], before[items] - before[from]);
        if (value >= cuts.value[run][items]) continue;
        cuts.value[run][items] = value;
        cuts.begin[run][items] = from;
      }
    }
  }
  return cuts;
}

}  // namespace

StageCosts measure_stage_costs(const TransformerOptions& whole, std::uint64_t seed, Communicator& world,
                               Stream& stream) {
  const std::int64_t layers = whole.model.layers;
  const auto kind_of = [&](std::int64_t stage) {
    return stage == layers ? 3 : stage == 0 ? 0 : whole.model.mixture(stage) ? 1 : 2;
  };
  std::vector<double> seconds(4, 0.0);
  std::vector<char> seen(4, 0);
  int kinds = 0;
  for (std::int64_t stage = 0; stage <= layers; ++stage) {
    const auto kind = index(kind_of(stage));
    if (std::exchange(seen[kind], 1) != 0 || kinds++ % world.size() != world.rank()) continue;
    seconds[kind] = seconds_of(whole, static_cast<int>(stage), seed, stream);
  }
  if (world.size() > 1) world.all_reduce(view_of(seconds.data(), DType::f64, {4}));
  StageCosts costs{.layers = {}, .end = seconds[3]};
  for (std::int64_t stage = 0; stage < layers; ++stage) costs.layers.push_back(seconds[index(kind_of(stage))]);
  return costs;
}

std::vector<std::int64_t> cut_stages(const StageCosts& costs, int stages) {
  std::vector<double> weights = costs.layers;
  weights.push_back(costs.end);
  const auto runs = static_cast<std::size_t>(stages);
  check(stages >= 1 && runs <= weights.size(), "{} layers in {} stages", costs.layers.size(), stages);
  const Cuts slowest = best_cuts(weights, runs, [](double rest, double run) { return std::max(rest, run); });
  const double most = slowest.value[runs].back() * (1 + 1e-9);  // sums are rounded
  const Cuts even = best_cuts(weights, runs, [&](double rest, double run) {
    return run > most ? std::numeric_limits<double>::infinity() : rest + run * run;
  });
  std::vector<std::int64_t> layers(runs);
  std::size_t end = weights.size();
  for (std::size_t run = runs; run > 0; --run) {
    const std::size_t begin = even.begin[run][end];
    layers[run - 1] = static_cast<std::int64_t>(end - begin);
    end = begin;
  }
  --layers.back();  // the end is none
  return layers;
}

double slowest_stage(const StageCosts& costs, const std::vector<std::int64_t>& stage_layers) {
  double slowest = 0;
  auto layer = costs.layers.begin();
  for (std::size_t stage = 0; stage < stage_layers.size(); ++stage) {
    const double own = stage + 1 == stage_layers.size() ? costs.end : 0;
    slowest = std::max(slowest, std::accumulate(layer, layer + stage_layers[stage], own));
    layer += stage_layers[stage];
  }
  const double all = std::accumulate(costs.layers.begin(), costs.layers.end(), costs.end);
  return slowest / all * static_cast<double>(stage_layers.size());
}

std::string cut_text(const StageCosts& costs, const std::vector<std::int64_t>& measured,
                     const std::vector<std::int64_t>& even) {
  return fmt::format(
      "pipeline cut by measured time: {} layers; its slowest stage takes {:.2f} times the mean ({:.2f} with {})",
      fmt::join(measured, " "), slowest_stage(costs, measured), slowest_stage(costs, even), fmt::join(even, " "));
}

}  // namespace shoestring
