#include "core/training/training_state.h"

#include <limits>
#include <nlohmann/json.hpp>

#include "kernels/base/check.h"

namespace shoestring {
namespace {

constexpr const char* kSchema = "shoestring.state/2";
constexpr const char* kFirstSchema = "shoestring.state/1";  // its guard skipped whatever stood out
constexpr std::size_t kMaxEntries = 1'000'000;

std::int64_t count_of(const nlohmann::json& object, const char* key) {
  const nlohmann::json& value = object.at(key);
  const auto number = value.get<std::int64_t>();
  if (!value.is_number_integer() || number < 0) throw std::runtime_error(fmt::format("{} is out of range", key));
  return number;
}

int small_count_of(const nlohmann::json& object, const char* key) {
  const std::int64_t number = count_of(object, key);
  if (number > std::numeric_limits<int>::max()) throw std::runtime_error(fmt::format("{} is out of range", key));
  return static_cast<int>(number);
}

std::deque<double> window_of(const nlohmann::json& object, const char* key) {
  const nlohmann::json& list = object.at(key);
  if (!list.is_array() || list.size() > kMaxEntries) throw std::runtime_error(fmt::format("{} is not a list", key));
  return list.get<std::deque<double>>();
}

// The one word of a recipe that was spelt otherwise in checkpoints of before.
void respell(std::string& recipe) {
  constexpr std::string_view kBefore = "schedule = one_f_one_b\n";
  const std::size_t at = recipe.find(kBefore);
  if (at != std::string::npos) recipe.replace(at, kBefore.size(), "schedule = 1f1b\n");
}

GuardState guard_of(const nlohmann::json& json, bool first_schema) {
  GuardState guard;
  guard.losses = window_of(json, "losses");
  guard.norms = window_of(json, "norms");
  guard.skipped_in_row = small_count_of(json, "skipped_in_row");
  guard.skipped = count_of(json, "skipped");
  guard.strange_in_row = first_schema ? guard.skipped_in_row : small_count_of(json, "strange_in_row");
  if (first_schema) return guard;
  guard.tried_return = json.at("tried_return").get<bool>();
  guard.clipped = count_of(json, "clipped");
  guard.returns = count_of(json, "returns");
  return guard;
}

}  // namespace

std::string to_json(const TrainingState& state) {
  nlohmann::ordered_json json;
  json["schema"] = kSchema;
  json["step"] = state.step;
  json["updates"] = state.updates;
  json["tokens"] = state.tokens;
  json["phase"] = state.phase;
  json["phase_steps"] = state.phase_steps;
  json["phase_samples"] = state.phase_samples;
  json["reduction_groups"] = state.reduction_groups;
  json["data_plan"] = state.data_plan;
  json["recipe"] = state.recipe;
  json["loss"] = state.loss;
  if (state.best_held_out) {
    json["held_out"] = {{"best", *state.best_held_out}, {"stale", state.stale_evaluations}};
    if (state.best_step >= 0) json["held_out"]["step"] = state.best_step;
  }
  json["decisions"] = nlohmann::ordered_json::array();
  for (const HorizonDecision& decision : state.decisions) {
    json["decisions"].push_back({{"step", decision.step},
                                 {"progress", decision.progress},
                                 {"end_step", decision.end_step},
                                 {"end_progress", decision.end_progress},
                                 {"phase", decision.phase}});
  }
  json["guard"] = {{"losses", state.guard.losses},
                   {"norms", state.guard.norms},
                   {"strange_in_row", state.guard.strange_in_row},
                   {"skipped_in_row", state.guard.skipped_in_row},
                   {"tried_return", state.guard.tried_return},
                   {"skipped", state.guard.skipped},
                   {"clipped", state.guard.clipped},
                   {"returns", state.guard.returns}};
  return json.dump(1);
}

TrainingState training_state_from_json(const std::string& text, const std::string& where) {
  TrainingState state;
  try {
    const nlohmann::json json = nlohmann::json::parse(text);
    const bool first = json.at("schema") == kFirstSchema;
    if (!first && json.at("schema") != kSchema) {
      throw std::runtime_error(fmt::format("the schema is neither {} nor {}", kSchema, kFirstSchema));
    }
    state.step = count_of(json, "step");
    state.updates = count_of(json, "updates");
    state.tokens = count_of(json, "tokens");
    state.phase = small_count_of(json, "phase");
    state.phase_steps = count_of(json, "phase_steps");
    state.phase_samples = count_of(json, "phase_samples");
    state.reduction_groups = small_count_of(json, "reduction_groups");
    state.data_plan = json.at("data_plan").get<std::string>();
    state.recipe = json.at("recipe").get<std::string>();
    respell(state.recipe);
    const nlohmann::json& loss = json.at("loss");  // of a skipped step it may be no number: JSON has none for that
    state.loss = loss.is_null() ? std::numeric_limits<double>::quiet_NaN() : loss.get<double>();
    if (const auto held_out = json.find("held_out"); held_out != json.end()) {
      state.best_held_out = held_out->at("best").get<double>();
      state.stale_evaluations = count_of(*held_out, "stale");
      if (held_out->contains("step")) state.best_step = count_of(*held_out, "step");
    }
    for (const nlohmann::json& entry : json.at("decisions")) {
      state.decisions.push_back({.step = count_of(entry, "step"),
                                 .progress = entry.at("progress").get<double>(),
                                 .end_step = count_of(entry, "end_step"),
                                 .end_progress = entry.at("end_progress").get<double>(),
                                 .phase = small_count_of(entry, "phase")});
    }
    state.guard = guard_of(json.at("guard"), first);
  } catch (const std::exception& error) {
    fail(ExitCode::corrupt_checkpoint,
         "{}: training/state.json: {}; restore a copy, or remove the step to go back to an earlier one", where,
         error.what());
  }
  return state;
}

}  // namespace shoestring
