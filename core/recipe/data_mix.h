// How the weights of a phase's sources change while it runs, and how often each source may be read.
//
//   mix = 0.8: 0.7 0.3, 1: 0.2 0.8     from `train`'s weights in a straight line to 7 : 3 after 80% of the phase, then
//                                      on to 2 : 8 at its end; two points at one share are a jump
//   most_epochs = 4, 0                 of the first source 4 epochs at most, of the second any number
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/recipe/recipe.h"
#include "data/mixture_schedule.h"

namespace shoestring {

/// The weights at a share of the phase, one a source, their sum being 1.
struct MixPoint {
  double share = 0;
  std::vector<double> weights;
};

/// What a phase is trained on: its own sources with its own mix and limits, or those of [data].
struct PhaseData {
  const std::vector<SourceSpec>& train;
  const std::vector<std::string>& mix;
  const std::vector<std::string>& most_epochs;
};
PhaseData phase_data(const Recipe& recipe, const PhaseSpec& phase);

/// Each returns what is wrong, or nothing. `points` begin with `train`'s own weights at share 0 unless `mix` is empty.
std::string parse_mix(const PhaseData& data, std::vector<MixPoint>& points);
std::string parse_most_epochs(const PhaseData& data, std::vector<double>& epochs);

/// Samples that the phase has, with horizon = tokens or steps; 0 where that depends on speed.
std::int64_t phase_samples(const Recipe& recipe, const PhaseSpec& phase);

/// The points as a loader takes them: over as many samples, straight lines in steps.
std::vector<MixturePoint> over_samples(const std::vector<MixPoint>& points, std::int64_t samples);

}  // namespace shoestring
