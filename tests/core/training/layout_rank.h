// One rank of a layout over a small model of eight layers, ready to train, and all that it holds by name.
#pragma once

#include <fmt/core.h>

#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include "core/training/engine.h"
#include "kernels/base/check.h"
#include "tests/core/model/small_models.h"
#include "tests/core/training/made_feed.h"

namespace shoestring::testing {

/// Everything that training leaves, by name, as bytes.
using Record = std::map<std::string, std::string>;

inline std::string bytes_of(ConstTensorView view) {
  check(view.contiguous(), "{} is not dense", view.to_string());
  return {static_cast<const char*>(view.data), static_cast<std::size_t>(view.bytes())};
}
inline std::string bytes_of(double value) { return bytes_of(view_of(&value, DType::f64, {1})); }

inline ModelConfig eight_layers(Architecture architecture, bool tied = false) {
  ModelSpec spec = small_spec(architecture);
  spec.layers = 8;
  spec.tie_embeddings = tied;
  return resolve_model(spec, small_config(architecture).vocabulary, spec.max_positions);
}

struct LayoutRank {
  static constexpr std::int64_t kSequence = 12;
  static constexpr std::int64_t kMicroBatch = 1;
  static constexpr std::int64_t kGlobalBatch = 16;  ///< 8 micro-batches a group: enough for four ranks of any schedule
  static constexpr int kGroups = 2;

  static Recipe recipe_of(const ModelConfig& config, int pipeline, ScheduleName schedule, int expert = 1) {
    Recipe recipe;
    recipe.model.layers = config.layers;
    recipe.model.experts = config.experts;
    recipe.model.bias_speed = 0.25;
    recipe.parallel.pipeline = pipeline;
    recipe.parallel.schedule = schedule;
    recipe.parallel.expert = expert;
    recipe.parallel.reduction_groups = kGroups;
    recipe.optimizer.clip = 1e-3;  // bites, so that a wrong norm moves every weight
    PhaseSpec phase;
    phase.sequence = kSequence;
    phase.micro_batch = kMicroBatch;
    phase.global_batch = kGlobalBatch;
    recipe.phases = {phase};
    return recipe;
  }

  LayoutRank(const ModelConfig& config, PrecisionPolicy format, const Recipe& with, Communicator& world)
      : recipe(with),
        layout(layout_of(recipe, world.rank(), world.size())),
        mesh(world, layout.shape),
        exchange(exchange_of(layout, mesh, config)),
        model(part_of({.model = config,
                       .precision = policy(format),
                       .run = {kMicroBatch * kSequence, kMicroBatch, 1},
                       .own_stages = {}},
                      layout, exchange.get())),
        feed(config.vocabulary, kSequence, clock),
        plan(recipe.phases[0], groups(), layout.shape.data) {
    model.allocate(stream);
    optimizer = optimizer_of(recipe, model, mesh, 1);
    model.initialise(5);
    model.prepare();
    engine = std::make_unique<Engine>(recipe, EngineParts{model, *optimizer, stream}, mesh, groups(), meter,
                                      layout.schedule);
  }

  int groups() const { return reduction_groups(recipe, layout, 0); }
  StepOutcome step(int number) {
    return engine->step(
        {.plan = plan, .feed = feed, .samples = kGlobalBatch * (number - 1), .update = number, .learning_rate = 1e-2});
  }
  /// Those that this rank has; of a tensor cut between ranks nobody has one.
  void note_gradients(const std::string& prefix, Record& record) const {
    for (const Parameter* parameter : model.parameters()) {
      if (parameter->grad.empty()) continue;
      for (const ParameterSlice& slice : parameter->slices) {
        const std::int64_t begin = slice.begin * parameter->columns;
        if (!engine->owns(*parameter, begin, slice.rows * parameter->columns)) continue;
        record[prefix + slice.name] = bytes_of(parameter->grad.slice(0, slice.begin, slice.rows));
      }
    }
  }
  /// Weights and optimizer state.
  void note_state(Record& record) const {
    for (const Parameter* parameter : model.parameters()) {
      for (const ParameterSlice& slice : parameter->slices) {
        record["weight " + slice.name] = bytes_of(parameter->value.slice(0, slice.begin, slice.rows));
      }
    }
    for (const OptimizerState& state : optimizer->state()) record["state " + state.name] = bytes_of(state.data);
  }

  Recipe recipe;
  Layout layout;
  Mesh mesh;
  std::unique_ptr<ExpertExchange> exchange;
  Workers workers{1};
  Stream stream{workers};
  Transformer model;
  std::unique_ptr<Optimizer> optimizer;
  HeldClock clock;
  Meter meter{clock};
  MadeFeed feed;
  BatchPlan plan;
  std::unique_ptr<Engine> engine;
};

}  // namespace shoestring::testing
