// A [model] that is left to a Hugging Face folder: model.from.
#pragma once

#include <vector>

#include "core/recipe/parse.h"

namespace shoestring {

/// Where the recipe has model.from, gives every key of [model] that it does not have the value of the folder's
/// config.json, with that file as origin. Keys that decide how a model is trained and not what it is (init_std,
/// bias_speed, balance_loss, mtp_weight, and mtp_layers, which leaves the main model as it is) may be given besides;
/// every other key that says something else than the folder is a mistake, which names both values. Where the folder is
/// gone, RUN/source/config.json stands for its own, and a recipe that says everything needs neither. Throws
/// Error(missing_input) where there is no such folder, and what read_hugging_face_spec throws, naming the file.
std::vector<Mistake> complete_model(RecipeReading& reading);

}  // namespace shoestring
