#include "core/recipe/model_from.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>

#include "core/model/hugging_face_config.h"
#include "core/recipe/keys.h"
#include "core/recipe/scan.h"
#include "kernels/base/check.h"
#include "kernels/base/file.h"

namespace shoestring {
namespace {

constexpr std::int64_t kConfigBytesLimit = 1 << 20;

/// How a model is trained: the recipe's to say.
constexpr std::array<std::string_view, 5> kOfTraining = {"init_std", "bias_speed", "balance_loss", "mtp_layers",
                                                         "mtp_weight"};
/// Where 0 means that the value follows from others.
constexpr std::array<std::string_view, 4> kMayBeZero = {"vocabulary", "kv_heads", "head_dim", "max_positions"};

template <std::size_t count>
bool among(const std::array<std::string_view, count>& names, std::string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

/// The folder's config.json; where the folder is gone, what a run that began with it has kept.
std::filesystem::path config_file(const Recipe& recipe) {
  const std::filesystem::path file = std::filesystem::path(recipe.model.from) / "config.json";
  if (type_of(file) != std::filesystem::file_type::not_found) return file;
  const std::filesystem::path run = recipe.run.directory.empty() ? std::filesystem::path("runs") / recipe.run.name
                                                                 : std::filesystem::path(recipe.run.directory);
  const std::filesystem::path kept = run / "source/config.json";
  return type_of(kept) == std::filesystem::file_type::not_found ? file : kept;
}

/// Whether nothing of [model] is left to the folder: the recipe of a checkpoint says everything.
bool says_everything(const RecipeReading& reading) {
  return std::all_of(recipe_keys().begin(), recipe_keys().end(), [&](const Key& key) {
    return key.section != "model" || reading.origins.contains("model." + key.name) ||
           key.print(reading.recipe, 0).empty();
  });
}

ModelSpec spec_of(const std::filesystem::path& file, const Origin& asked) {
  if (type_of(file) == std::filesystem::file_type::not_found) {
    fail(ExitCode::missing_input, "{}: model.from: there is no {}; name a Hugging Face model folder", asked.place(),
         file.string());
  }
  try {
    return read_hugging_face_spec(read_file(file, kConfigBytesLimit));
  } catch (const Error& error) {
    fail(error.code(), "{}: {}", file.string(), error.what());
  }
}

}  // namespace

std::vector<Mistake> complete_model(RecipeReading& reading) {
  std::vector<Mistake> mistakes;
  Recipe& recipe = reading.recipe;
  if (recipe.model.from.empty()) return mistakes;
  const std::filesystem::path file = config_file(recipe);
  if (type_of(file) == std::filesystem::file_type::not_found && says_everything(reading)) return mistakes;
  Recipe folder;
  folder.model = spec_of(file, reading.origins.at("model.from"));
  for (const Key& key : recipe_keys()) {
    if (key.section != "model" || key.name == "from") continue;
    const std::string dotted = "model." + key.name;
    const std::string theirs = key.print(folder, 0);
    const std::string ours = key.print(recipe, 0);
    const auto given = reading.origins.find(dotted);
    const bool left_open = given == reading.origins.end() || (ours == "0" && among(kMayBeZero, key.name));
    if (left_open) {
      key.assign(recipe, 0, theirs);
      if (theirs != default_text(key)) reading.origins.insert_or_assign(dotted, Origin{file.string(), 0, theirs});
    } else if (ours != theirs && !among(kOfTraining, key.name)) {
      mistakes.push_back({given->second, dotted,
                          fmt::format("{} = {}, but {} says {}: leave it out, or begin with another folder", dotted,
                                      ours, file.string(), theirs)});
      key.assign(recipe, 0, theirs);  // so that nothing else contradicts it
    }
  }
  return mistakes;
}

}  // namespace shoestring
