#include "core/recipe/model_from.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <set>

#include "core/model/hugging_face_config.h"
#include "core/recipe/keys.h"
#include "core/recipe/scan.h"
#include "kernels/base/check.h"
#include "kernels/base/file.h"

namespace shoestring {
namespace {

namespace fs = std::filesystem;

constexpr std::int64_t kConfigBytesLimit = 1 << 20;
constexpr std::int64_t kPointerBytesLimit = 256;

/// How a model is trained: the recipe's to say.
constexpr std::array<std::string_view, 5> kOfTraining = {"init_std", "bias_speed", "balance_loss", "mtp_layers",
                                                         "mtp_weight"};
/// Where 0 means that the value follows from others.
constexpr std::array<std::string_view, 4> kMayBeZero = {"vocabulary", "kv_heads", "head_dim", "max_positions"};

template <std::size_t count>
bool among(const std::array<std::string_view, count>& names, std::string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

fs::path run_of(const Recipe& recipe) {
  return recipe.run.directory.empty() ? fs::path("runs") / recipe.run.name : fs::path(recipe.run.directory);
}

bool is_there(const fs::path& file) { return type_of(file) != fs::file_type::not_found; }

/// The folder's config.json, or that of a run's last checkpoint; where the folder is gone, what the run has kept.
fs::path config_file(const Recipe& recipe, const WeightsSource& source) {
  fs::path file = source.place / "config.json";
  if (is_there(file)) return file;
  if (const fs::path latest = source.place / "checkpoints/latest"; is_there(latest)) {
    std::string name = read_file(latest, kPointerBytesLimit);
    while (!name.empty() && name.back() == '\n') name.pop_back();
    if (name.find('/') == std::string::npos) return source.place / "checkpoints" / name / "config.json";
  }
  const fs::path kept = run_of(recipe) / source.kept / "config.json";
  return is_there(kept) ? kept : file;
}

/// Whether nothing of [model] is left to the folder: the recipe of a checkpoint says everything.
bool says_everything(const RecipeReading& reading) {
  return std::all_of(recipe_keys().begin(), recipe_keys().end(), [&](const Key& key) {
    return key.section != "model" || reading.origins.contains("model." + key.name) ||
           key.print(reading.recipe, 0).empty();
  });
}

ModelSpec spec_of(const fs::path& file, const std::string& key, const Origin& asked) {
  if (!is_there(file)) {
    fail(ExitCode::missing_input, "{}: {}: there is no {}; name a Hugging Face model folder, or a run", asked.place(),
         key, file.string());
  }
  try {
    return read_hugging_face_spec(read_file(file, kConfigBytesLimit));
  } catch (const Error& error) {
    fail(error.code(), "{}: {}", file.string(), error.what());
  }
}

/// A [model] on its way to being complete.
class Completion {
 public:
  explicit Completion(RecipeReading& reading) : reading_(reading) {
    for (const Key& key : recipe_keys()) {
      if (key.section != "model" || !reading.origins.contains("model." + key.name)) continue;
      const bool open = key.print(reading.recipe, 0) == "0" && among(kMayBeZero, key.name);
      if (!open) given_.insert("model." + key.name);
    }
    known_ = given_;
  }

  /// Takes what is not known from a folder's config.json; what is known must be the same there.
  void take(const WeightsSource& source, const fs::path& file) {
    Recipe folder;
    folder.model = spec_of(file, source.key, reading_.origins.at(source.key));
    for (const Key& key : recipe_keys()) {
      if (key.section != "model" || key.name == "from") continue;
      const std::string dotted = "model." + key.name;
      const std::string theirs = key.print(folder, 0);
      if (known_.insert(dotted).second) {
        key.assign(reading_.recipe, 0, theirs);
        if (theirs != default_text(key)) reading_.origins.insert_or_assign(dotted, Origin{file.string(), 0, theirs});
      } else if (key.print(reading_.recipe, 0) != theirs && !among(kOfTraining, key.name)) {
        differs(key, theirs, source, file);
      }
    }
  }

  std::vector<Mistake> mistakes() { return std::move(mistakes_); }

 private:
  void differs(const Key& key, const std::string& theirs, const WeightsSource& source, const fs::path& file) {
    const std::string dotted = "model." + key.name;
    const bool given = given_.contains(dotted);
    mistakes_.push_back(
        {reading_.origins.at(given ? dotted : source.key), dotted,
         fmt::format("{} = {}, but {} says {}: {}", dotted, key.print(reading_.recipe, 0), file.string(), theirs,
                     given ? "leave it out, or begin with another folder"
                           : "a run trains one model, whichever weights a phase begins with")});
    if (given) key.assign(reading_.recipe, 0, theirs);  // so that nothing else contradicts it
  }

  RecipeReading& reading_;
  std::set<std::string> given_;  // keys that the recipe has
  std::set<std::string> known_;  // and those that folders gave
  std::vector<Mistake> mistakes_;
};

}  // namespace

WeightsSource weights_source(const Recipe& recipe, std::size_t phase) {
  const PhaseSpec& spec = recipe.phases.at(phase);
  const bool of_run = phase == 0 && !recipe.model.from.empty();
  return {of_run ? "model.from" : fmt::format("phase.{}.from", spec.name), of_run ? recipe.model.from : spec.from,
          phase == 0 ? "source" : "source." + spec.name};
}

bool begins_with_weights(const Recipe& recipe, std::size_t phase) {
  const auto adapts = [&](std::size_t at) { return lora_of(recipe, recipe.phases.at(at)).rank > 0; };
  return phase == 0 || weights_source(recipe, phase) || adapts(phase) != adapts(phase - 1);
}

std::vector<Mistake> complete_model(RecipeReading& reading) {
  Completion completion(reading);
  const bool complete = says_everything(reading);
  for (std::size_t phase = 0; phase < std::max<std::size_t>(1, reading.recipe.phases.size()); ++phase) {
    WeightsSource source{"model.from", reading.recipe.model.from, "source"};  // there may be no phase
    if (!reading.recipe.phases.empty()) source = weights_source(reading.recipe, phase);
    if (!source) continue;
    const fs::path file = config_file(reading.recipe, source);
    if (complete && !is_there(file)) continue;
    completion.take(source, file);
  }
  return completion.mistakes();
}

}  // namespace shoestring
