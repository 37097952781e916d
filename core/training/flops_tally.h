// Arithmetic that an attempt does, by number format.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "core/budget/hardware.h"
#include "core/model/config.h"
#include "core/recipe/recipe.h"

namespace shoestring {

class FlopsTally {
 public:
  /// Tokens here are those of text that the model read, learned or not. From here on one costs what model/accounting.h
  /// counts for training `phase`.
  void enter(const ModelConfig& model, const Recipe& recipe, const PhaseSpec& phase);
  void add(double tokens);
  const PerFormat& done() const { return done_; }

  /// FLOP/s over `peak`, for each format that is used and has a peak: `tokens` took `device_seconds`, summed over
  /// devices.
  std::vector<std::pair<std::string, double>> utilisation(double tokens, double device_seconds,
                                                          const PerFormat& peak) const;

 private:
  PerFormat per_token_;
  PerFormat done_;
};

}  // namespace shoestring
