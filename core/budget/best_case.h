// What a recipe's phases come to on given hardware when nothing is lost: every product at the rate of the best large
// one, no waiting, no optimizer, no norms. A bound that no run passes, and what a real one is measured against.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "core/budget/hardware.h"
#include "core/model/config.h"
#include "core/recipe/recipe.h"

namespace shoestring {

struct PhaseBound {
  std::string name;
  double tokens = 0;     ///< at most those, where the budget is the horizon; otherwise what the recipe asks for
  double gpu_hours = 0;  ///< at least those, where tokens or steps are the horizon; otherwise the phase's share
};

struct BestCase {
  std::vector<PhaseBound> phases;
  std::optional<RateFormat> unrated;  ///< the hardware does not say how fast it multiplies in this: no phases

  double tokens() const;
  double gpu_hours() const;
};

/// `cap_gpu_hours`: what the phases share where the budget is the horizon. Steps count at the full global batch (a ramp
/// makes their tokens fewer). A format's rate is what the hardware achieves, or its peak where only that is known.
BestCase best_case(const Recipe& recipe, const ModelConfig& config, const Hardware& hardware, double cap_gpu_hours);

}  // namespace shoestring
