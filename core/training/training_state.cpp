#include "core/training/training_state.h"

#include <limits>

#include "kernels/base/check.h"
#include "kernels/base/json.h"

namespace shoestring {
namespace {

constexpr const char* kSchema = "shoestring.state/2";
constexpr const char* kFirstSchema = "shoestring.state/1";  // its guard skipped whatever stood out
constexpr std::size_t kMaxEntries = 1'000'000;

constexpr std::int64_t kMostCount = std::int64_t{1} << 53;  // what is counted on from it stays far from overflow

std::int64_t count_of(const Json& object, const char* key, std::int64_t most = kMostCount) {
  const Json& value = object.at(key);
  if (!value.is_count() || value.count() > most) {
    fail(ExitCode::bad_data, "'{}' must be a whole number of at most {}", key, most);
  }
  return value.count();
}

int small_count_of(const Json& object, const char* key) {
  return static_cast<int>(count_of(object, key, std::numeric_limits<int>::max()));
}

std::deque<double> window_of(const Json& object, const char* key) {
  const Json& list = object.at(key);
  if (!list.is_array() || list.size() > kMaxEntries) {
    fail(ExitCode::bad_data, "'{}' must be a list of at most {} numbers", key, kMaxEntries);
  }
  std::deque<double> window;
  for (const Json& value : list.items()) window.push_back(value.number());
  return window;
}

// The one word of a recipe that was spelt otherwise in checkpoints of before.
void respell(std::string& recipe) {
  constexpr std::string_view kBefore = "schedule = one_f_one_b\n";
  const std::size_t at = recipe.find(kBefore);
  if (at != std::string::npos) recipe.replace(at, kBefore.size(), "schedule = 1f1b\n");
}

GuardState guard_of(const Json& json, bool first_schema) {
  GuardState guard;
  guard.losses = window_of(json, "losses");
  guard.norms = window_of(json, "norms");
  guard.skipped_in_row = small_count_of(json, "skipped_in_row");
  guard.skipped = count_of(json, "skipped");
  guard.strange_in_row = first_schema ? guard.skipped_in_row : small_count_of(json, "strange_in_row");
  if (first_schema) return guard;
  guard.tried_return = json.at("tried_return").flag();
  guard.clipped = count_of(json, "clipped");
  guard.returns = count_of(json, "returns");
  if (json.find("broken_in_row") != nullptr) guard.broken_in_row = small_count_of(json, "broken_in_row");
  return guard;
}

}  // namespace

std::string to_json(const TrainingState& state) {
  Json json = Json::object({{"schema", kSchema},
                            {"step", state.step},
                            {"updates", state.updates},
                            {"tokens", state.tokens},
                            {"learned_tokens", state.learned_tokens},
                            {"phase", state.phase},
                            {"phase_steps", state.phase_steps},
                            {"phase_samples", state.phase_samples},
                            {"reduction_groups", state.reduction_groups},
                            {"data_plan", state.data_plan},
                            {"recipe", state.recipe},
                            {"loss", state.loss}});
  if (state.best_held_out || state.stale_evaluations > 0) {
    Json& held_out = json.add("held_out", Json::object({{"stale", state.stale_evaluations}}));
    if (state.best_held_out) held_out.add("best", *state.best_held_out);
    if (state.best_step >= 0) held_out.add("step", state.best_step);
  }
  if (state.proven_step >= 0) json.add("proven_step", state.proven_step);
  Json& decisions = json.add("decisions", Json::array());
  for (const HorizonDecision& decision : state.decisions) {
    decisions.push(Json::object({{"step", decision.step},
                                 {"progress", decision.progress},
                                 {"end_step", decision.end_step},
                                 {"end_progress", decision.end_progress},
                                 {"phase", decision.phase}}));
  }
  json.add("guard", Json::object({{"losses", Json::array_of(state.guard.losses)},
                                  {"norms", Json::array_of(state.guard.norms)},
                                  {"strange_in_row", state.guard.strange_in_row},
                                  {"skipped_in_row", state.guard.skipped_in_row},
                                  {"broken_in_row", state.guard.broken_in_row},
                                  {"tried_return", state.guard.tried_return},
                                  {"skipped", state.guard.skipped},
                                  {"clipped", state.guard.clipped},
                                  {"returns", state.guard.returns}}));
  return json.dump(1);
}

TrainingState training_state_from_json(const std::string& text, const std::string& where) {
  TrainingState state;
  try {
    const Json json = parse_json(text, "is not JSON");
    const bool first = json.at("schema").text() == kFirstSchema;
    if (!first && json.at("schema").text() != kSchema) {
      fail(ExitCode::bad_data, "'schema' must be {} or {}", kSchema, kFirstSchema);
    }
    state.step = count_of(json, "step");
    state.updates = count_of(json, "updates");
    state.tokens = count_of(json, "tokens");
    const bool apart = json.find("learned_tokens") != nullptr;  // before, learned ones alone were counted
    state.learned_tokens = apart ? count_of(json, "learned_tokens") : state.tokens;
    state.phase = small_count_of(json, "phase");
    state.phase_steps = count_of(json, "phase_steps");
    state.phase_samples = count_of(json, "phase_samples");
    state.reduction_groups = small_count_of(json, "reduction_groups");
    state.data_plan = json.at("data_plan").text();
    state.recipe = json.at("recipe").text();
    respell(state.recipe);
    const Json& loss = json.at("loss");  // of a skipped step it may be no number: JSON has none for that
    state.loss = loss.is_null() ? std::numeric_limits<double>::quiet_NaN() : loss.number();
    if (const Json* held_out = json.find("held_out")) {
      if (const Json* best = held_out->find("best")) state.best_held_out = best->number();
      state.stale_evaluations = count_of(*held_out, "stale");
      if (held_out->find("step") != nullptr) state.best_step = count_of(*held_out, "step");
    }
    if (json.find("proven_step") != nullptr) state.proven_step = count_of(json, "proven_step");
    for (const Json& entry : json.at("decisions").items()) {
      state.decisions.push_back({.step = count_of(entry, "step"),
                                 .progress = entry.at("progress").number(),
                                 .end_step = count_of(entry, "end_step"),
                                 .end_progress = entry.at("end_progress").number(),
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
