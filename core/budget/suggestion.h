// Which model buys the lowest expected loss for given GPU-hours on given devices. Shapes of usual proportions are
// walked from small to large; each trains for as many tokens as its best layout gets through in that time, and a
// published scaling law says what loss that comes to.
#pragma once

#include <vector>

#include "core/budget/run_estimate.h"
#include "core/budget/scaling_law.h"

namespace shoestring {

struct Suggestion {
  ModelSpec model;
  double parameters = 0;
  double active = 0;     ///< that a token passes, as counted by core/model/accounting.h
  double expansion = 1;  ///< see ScalingLaw
  double tokens = 0;
  double steps = 0;
  std::int64_t global_batch = 0;  ///< sequences
  double learning_rate = 0;
  double loss = 0;
  double gpu_hours = 0;
  RankedLayout layout;
};

struct SuggestionQuestion {
  const Recipe& recipe;  ///< precision, sequence and micro-batch of its first phase, optimizer state
  const Hardware& hardware;
  std::int64_t vocabulary = 0;
  int devices = 1;
  double gpu_hours = 0;
  const ScalingLaw& law;
};

/// The best first: of each kind (dense; where the law knows them, mixtures of 8 and 32 times the active experts) the
/// sizes around its best one. Empty where no shape fits the devices. Throws Error(bad_recipe) where the hardware lacks
/// a figure.
std::vector<Suggestion> suggest(const SuggestionQuestion& question);

}  // namespace shoestring
