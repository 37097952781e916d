// A [model] that is left to the folders that weights come from: model.from and phase.NAME.from.
#pragma once

#include <cstddef>
#include <filesystem>
#include <string>
#include <vector>

#include "core/recipe/parse.h"

namespace shoestring {

/// Where a phase takes other weights than those before it. The first phase's is what the run begins with, named by
/// model.from as well as by the phase.
struct WeightsSource {
  std::string key;              ///< that names the folder
  std::filesystem::path place;  ///< a Hugging Face folder, or a run's; empty: none is named
  std::filesystem::path kept;   ///< within RUN: what is kept of the folder, its config.json among it
  explicit operator bool() const { return !place.empty(); }
};
WeightsSource weights_source(const Recipe& recipe, std::size_t phase);

/// Whether a phase begins with other weights than those before it, or trains others (phase.NAME.lora): with them the
/// optimizer and the warm-up begin.
bool begins_with_weights(const Recipe& recipe, std::size_t phase);

/// Gives every key of [model] that the recipe does not have the value of the first such folder's config.json, with that
/// file as origin. Keys that decide how a model is trained and not what it is (init_std, bias_speed, balance_loss,
/// mtp_weight, and mtp_layers, which leaves the main model as it is) may be given besides; every other key that says
/// something else than a folder is a mistake, which names both values. Where a folder is gone, what RUN keeps of it
/// stands for its own, and a recipe that says everything needs neither. Throws Error(missing_input) where there is no
/// such folder, and what read_hugging_face_spec throws, naming the file.
std::vector<Mistake> complete_model(RecipeReading& reading);

}  // namespace shoestring
