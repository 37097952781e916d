// Keys that nothing reads, because of what another key says: whoever gives one a value means something that would not
// happen. One table; a row names the keys, when they are read, and what decides it.
//
// A key is left alone where it has its default value, since canonical text gives all keys, and where what decides was
// written in a more important place (the command line, a recipe over its include): whoever says --schedule.kind =
// constant there knows that the recipe's own decay is gone.
#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/model/precision.h"
#include "core/recipe/keys.h"
#include "core/recipe/rules.h"
#include "core/recipe/scan.h"
#include "core/recipe/validate.h"
#include "kernels/base/check.h"

namespace shoestring {
namespace {

using Condition = bool (*)(const Recipe&);

/// Names are dotted; "phase.NAME" stands for each phase's own key, as a switch for that of every phase.
struct Row {
  std::vector<std::string_view> keys;
  Condition read;
  std::vector<std::string_view> switches;  ///< the keys that decide
  std::string_view why;                    ///< "means nothing ...", of the keys
  std::string_view remedy;                 ///< what gives them a meaning
};

bool is(RopeScalingKind kind, const Recipe& recipe) { return recipe.model.rope_scaling == kind; }
bool is(Horizon horizon, const Recipe& recipe) { return recipe.schedule.horizon == horizon; }
bool is(LearningRateKind kind, const Recipe& recipe) { return recipe.schedule.kind == kind; }

/// Whether the format of a product is what the policy has anyway.
bool holds_anyway(const PrecisionSpec& precision, LinearFormat format) {
  return (format == LinearFormat::bf16 && precision.policy == PrecisionPolicy::bf16) ||
         (format == LinearFormat::fp32 && precision.policy == PrecisionPolicy::fp32);
}

constexpr std::string_view kNotLow = "with a precision.policy that is not of FP8";
constexpr std::string_view kTakeLow = "set precision.policy = fp8_block, fp8_tensor or mxfp8";

std::vector<Row> model_rows() {
  return {
      {{"model.rope_factor", "model.rope_original_positions"},
       [](const Recipe& recipe) { return !is(RopeScalingKind::none, recipe); },
       {"model.rope_scaling"},
       "without model.rope_scaling",
       "set model.rope_scaling = yarn or llama3"},
      {{"model.rope_low_frequency_factor", "model.rope_high_frequency_factor"},
       [](const Recipe& recipe) { return is(RopeScalingKind::llama3, recipe); },
       {"model.rope_scaling"},
       "without model.rope_scaling = llama3",
       "set that"},
      {{"model.rope_beta_fast", "model.rope_beta_slow", "model.rope_mscale", "model.rope_mscale_all_dim"},
       [](const Recipe& recipe) { return is(RopeScalingKind::yarn, recipe); },
       {"model.rope_scaling"},
       "without model.rope_scaling = yarn",
       "set that"},
      {{"model.experts"},
       [](const Recipe& recipe) {
         const ModelSpec& model = recipe.model;
         return model.experts == 0 || model.layers == 0 || model.dense_layers < model.layers + model.mtp_layers;
       },
       {"model.dense_layers", "model.layers"},
       "where every layer is one of model.dense_layers",
       "set model.dense_layers below model.layers"},
      {{"model.mtp_weight"},
       [](const Recipe& recipe) { return recipe.model.mtp_layers > 0; },
       {"model.mtp_layers"},
       "without model.mtp_layers",
       "set model.mtp_layers = 1"},
  };
}

std::vector<Row> precision_rows() {
  return {
      {{"precision.scales", "precision.gradients_e5m2"},
       [](const Recipe& recipe) { return low_precision(recipe.precision); },
       {"precision.policy"},
       kNotLow,
       kTakeLow},
      {{"precision.forward"},
       [](const Recipe& recipe) {
         return low_precision(recipe.precision) || holds_anyway(recipe.precision, recipe.precision.forward);
       },
       {"precision.policy"},
       kNotLow,
       kTakeLow},
      {{"precision.input_gradient"},
       [](const Recipe& recipe) {
         return low_precision(recipe.precision) || holds_anyway(recipe.precision, recipe.precision.input_gradient);
       },
       {"precision.policy"},
       kNotLow,
       kTakeLow},
      {{"precision.weight_gradient"},
       [](const Recipe& recipe) {
         return low_precision(recipe.precision) || holds_anyway(recipe.precision, recipe.precision.weight_gradient);
       },
       {"precision.policy"},
       kNotLow,
       kTakeLow},
  };
}

/// Of the layout, the data, the optimizer and the adapters. parallel.schedule is not among them: it may wait for the
/// pipeline that --parallel.pipeline brings, as the published recipes' does.
std::vector<Row> training_rows() {
  return {
      {{"budget.price_date"},
       [](const Recipe& recipe) { return recipe.budget.usd_per_gpu_hour > 0; },
       {"budget.usd_per_gpu_hour"},
       "without a price",
       "set budget.usd_per_gpu_hour"},
      {{"parallel.stages"},
       [](const Recipe& recipe) { return recipe.parallel.pipeline > 1; },
       {"parallel.pipeline"},
       "without a pipeline",
       "set parallel.pipeline to its ranks"},
      {{"parallel.stages_per_rank"},
       [](const Recipe& recipe) { return recipe.parallel.schedule == ScheduleName::interleaved; },
       {"parallel.schedule"},
       "without parallel.schedule = interleaved",
       "set that"},
      {{"data.stage_bytes"},
       [](const Recipe& recipe) { return !recipe.data.stage.empty(); },
       {"data.stage"},
       "without data.stage",
       "set data.stage to a folder on a fast disk"},
      {{"optimizer.muon_momentum", "optimizer.muon_iterations"},
       [](const Recipe& recipe) { return recipe.optimizer.name == OptimizerName::muon; },
       {"optimizer.name"},
       "without optimizer.name = muon",
       "set that"},
      {{"lora.alpha", "lora.targets", "phase.NAME.lora"},
       [](const Recipe& recipe) { return recipe.lora.rank > 0; },
       {"lora.rank"},
       "without lora.rank",
       "set lora.rank"},
      {{"lora.rank"},
       [](const Recipe& recipe) {
         const auto& phases = recipe.phases;
         return recipe.lora.rank == 0 || phases.empty() ||
                std::any_of(phases.begin(), phases.end(), [](const PhaseSpec& phase) { return phase.lora; });
       },
       {"phase.NAME.lora"},
       "where every phase has lora = no",
       "leave a phase its adapters (lora = yes)"},
  };
}

std::vector<Row> schedule_rows() {
  return {
      {{"schedule.decay_fraction"},
       [](const Recipe& recipe) { return is(LearningRateKind::warmup_stable_decay, recipe); },
       {"schedule.kind"},
       "without schedule.kind = warmup_stable_decay",
       "set that"},
      {{"schedule.final_fraction"},
       [](const Recipe& recipe) {
         return is(LearningRateKind::cosine, recipe) ||
                (is(LearningRateKind::warmup_stable_decay, recipe) && recipe.schedule.decay_fraction > 0);
       },
       {"schedule.kind", "schedule.decay_fraction"},
       "without a decay to it",
       "set schedule.kind = cosine, or warmup_stable_decay with a schedule.decay_fraction above 0"},
      {{"phase.NAME.tokens"},
       [](const Recipe& recipe) { return is(Horizon::tokens, recipe); },
       {"schedule.horizon"},
       "without schedule.horizon = tokens",
       "set that (--schedule.horizon=tokens)"},
      {{"phase.NAME.steps"},
       [](const Recipe& recipe) { return is(Horizon::steps, recipe); },
       {"schedule.horizon"},
       "without schedule.horizon = steps",
       "set that (--schedule.horizon=steps)"},
      {{"phase.NAME.share"},
       [](const Recipe& recipe) { return is(Horizon::budget, recipe); },
       {"schedule.horizon"},
       "without schedule.horizon = budget",
       "set that (--schedule.horizon=budget)"},
  };
}

const std::vector<Row>& rows() {
  static const std::vector<Row> all = [] {
    std::vector<Row> found;
    for (const auto& part : {model_rows(), precision_rows(), training_rows(), schedule_rows()}) {
      found.insert(found.end(), part.begin(), part.end());
    }
    return found;
  }();
  return all;
}

constexpr std::string_view kEachPhase = "phase.NAME.";

/// The most important place in which one of a row's switches was written.
int deciding_layer(const Row& row, const Recipe& recipe, const Rules& rules) {
  int layer = kUnwrittenLayer;
  for (const std::string_view name : row.switches) {
    if (!name.starts_with(kEachPhase)) {
      layer = std::min(layer, rules.layer(std::string(name)));
      continue;
    }
    for (const PhaseSpec& phase : recipe.phases) {
      layer = std::min(layer, rules.layer(fmt::format("phase.{}.{}", phase.name, name.substr(kEachPhase.size()))));
    }
  }
  return layer;
}

void check_key(const Recipe& recipe, std::size_t phase, const Row& row, std::string_view name, Rules& rules) {
  const bool of_phase = name.starts_with(kEachPhase);
  const std::string_view member = name.substr(name.rfind('.') + 1);
  const std::string key = of_phase ? fmt::format("phase.{}.{}", recipe.phases[phase].name, member) : std::string(name);
  const int layer = rules.layer(key);
  const Key& known = *find_key(key.substr(0, key.rfind('.')), member);
  const std::string value = known.print(recipe, phase);
  const bool written = layer < kUnwrittenLayer && value != default_text(known);
  if (!written || rules.blamed(key) || deciding_layer(row, recipe, rules) < layer) return;
  const std::string decides = row.switches.front().starts_with(kEachPhase) ? key : std::string(row.switches.front());
  rules.unless(
      false, {key, decides},
      fmt::format("{} = {} means nothing {}: {}, or leave {} out", key, quote_text(value), row.why, row.remedy, key));
}

/// Calls `visit` with each key that nothing reads in `recipe`.
template <class Visit>
void each_unread(const Recipe& recipe, const Visit& visit) {
  for (const Row& row : rows()) {
    if (row.read(recipe)) continue;
    for (const std::string_view name : row.keys) {
      const std::size_t phases = name.starts_with(kEachPhase) ? recipe.phases.size() : 1;
      for (std::size_t phase = 0; phase < phases; ++phase) visit(row, name, phase);
    }
  }
}

}  // namespace

// A key that has become its default may be what gave another one a meaning: until nothing changes.
Recipe without_unread_keys(Recipe recipe) {
  for (bool changed = true; changed;) {
    changed = false;
    Recipe next = recipe;
    each_unread(recipe, [&](const Row&, std::string_view name, std::size_t phase) {
      const std::size_t dot = name.rfind('.');
      const Key& key = *find_key(name.starts_with(kEachPhase) ? "phase" : name.substr(0, dot), name.substr(dot + 1));
      const std::string otherwise = default_text(key);
      changed = changed || key.print(recipe, phase) != otherwise;
      const std::string wrong = key.assign(next, phase, otherwise);
      check(wrong.empty(), "a default can be assigned");
    });
    recipe = std::move(next);
  }
  return recipe;
}

void check_unread_keys(const Recipe& recipe, Rules& rules) {
  each_unread(recipe, [&](const Row& row, std::string_view name, std::size_t phase) {
    check_key(recipe, phase, row, name, rules);
  });
}

}  // namespace shoestring
