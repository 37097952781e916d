// Not a command: what `shoestring plan` says of a run that is foretold from its hardware file, as text and as JSON.
#pragma once

#include <filesystem>
#include <optional>
#include <vector>

#include "core/budget/price.h"
#include "core/budget/run_estimate.h"
#include "kernels/base/json.h"

namespace shoestring {

struct PlanQuestion {
  const Recipe& recipe;
  const ModelConfig& config;
  const Hardware& hardware;
  const Cap& cap;
  int devices = 1;
  std::optional<PlanLayout> fixed;
  std::filesystem::path recipe_folder;
  std::vector<Correction> corrections;  ///< of each phase, from its own steps; or none
};

/// Prints the estimate, the ranked layouts and the what-if lines. False where no layout fits: it has then said which
/// changes would make it fit, the cheapest first.
bool print_estimate(const PlanQuestion& question);

/// The same as JSON (`shoestring.estimate/1`); where no layout fits, "what_if" holds those changes.
Json plan_json(const PlanQuestion& question);

}  // namespace shoestring
