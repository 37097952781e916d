// From logits to the next token.
//
//   p = softmax(logits / temperature)
//   top_k: the k likeliest;  top_p: of those the fewest, likeliest first, whose shares add up to top_p;
//   min_p: of those the ones at least min_p times as likely as the likeliest
//
// In this order, each among what the one before has left, as transformers has it. Ties go to the lower id, so that a
// seed repeats. Temperature 0 takes the likeliest token. Sources: Holtzman et al., "The curious case of neural text
// degeneration" (arXiv 1904.09751), section 3.1 (top_p); Nguyen et al., "Turning up the heat" (arXiv 2407.01082),
// section 3 (min_p).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace shoestring {

struct SamplingSettings {
  double temperature = 1;  ///< 0 to 100
  std::int64_t top_k = 0;  ///< 0: all
  double top_p = 1;        ///< above 0, to 1
  double min_p = 0;        ///< 0 to 1
};
/// Throws Error(usage) that names the first setting out of its range, with its value and the range.
void check_sampling(const SamplingSettings& settings);

struct Candidate {
  std::int32_t id = 0;
  double probability = 0;  ///< among the candidates
};
/// What may be drawn of ids [0, logits.size()); at least one. By id, or the likeliest first where top_k or top_p have
/// cut something off. Throws Error(non_finite) for a logit that is NaN or infinite, and where all are -infinity.
std::vector<Candidate> candidates(std::span<const float> logits, const SamplingSettings& settings);

/// The first candidate with which the sum of probabilities exceeds `uniform`, a number in [0, 1).
std::int32_t draw(std::span<const Candidate> candidates, double uniform);

}  // namespace shoestring
