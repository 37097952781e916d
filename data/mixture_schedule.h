// Mixtures over time: the weights of the sources change along a phase, and a source gives at most so many of its
// samples. Still arithmetic without state: time is cut into spans of constant weights, in each of which a Mixture
// (mixture.h) draws from the sources that take part, and what each span gives is counted once, when it is made.
//
// A span ends where the next weights begin, or where a source has given all it may; its share then goes to the others
// in proportion to their weights. Draws, counts and a resume cost the same anywhere: a binary search among the spans.
#pragma once

#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include "data/mixture.h"

namespace shoestring {

/// From sample `first` on.
struct MixturePoint {
  std::int64_t first = 0;
  std::vector<double> weights{};  ///< one a source; 0: gives nothing
};

class MixtureSchedule {
 public:
  static constexpr std::int64_t kNoLimit = std::numeric_limits<std::int64_t>::max();

  /// Points in rising order, the first at 0. `most`: samples that each source may give; empty: no limits. Throws
  /// Error(usage) for weights that are none.
  MixtureSchedule(const std::vector<MixturePoint>& points, const std::vector<std::int64_t>& most, std::uint64_t seed);

  /// What sample `sample` is. A pure function. Throws Error(bad_data) for one behind `samples()`.
  MixtureDraw draw(std::int64_t sample) const;
  void draw(std::int64_t first, std::span<MixtureDraw> out) const;
  /// How many of the samples [0, samples) come from `source`.
  std::int64_t count(int source, std::int64_t samples) const;

  /// How many there are before all sources have given what they may; kNoLimit without limits.
  std::int64_t samples() const { return end_; }
  int sources() const { return sources_; }

  /// The spans, for those who describe the schedule.
  struct Span {
    std::int64_t first = 0;
    std::vector<int> taking_part;
    std::vector<std::int64_t> given;  ///< by each source before it
    Mixture mixture;
  };
  const std::vector<Span>& spans() const { return spans_; }

 private:
  void add_spans(std::int64_t first, std::int64_t end, const std::vector<double>& weights, std::uint64_t seed);
  const Span& span_of(std::int64_t sample) const;
  std::int64_t most_of(int source) const { return most_.empty() ? kNoLimit : most_[static_cast<std::size_t>(source)]; }

  int sources_ = 0;
  std::vector<std::int64_t> most_;
  std::vector<Span> spans_;
  std::int64_t end_ = kNoLimit;
};

/// Weights that go in a straight line from `from` to `to` over samples [first, first + samples), in `steps` steps of
/// equal length, each with the weights of its middle.
std::vector<MixturePoint> annealed(std::int64_t first, std::int64_t samples, const std::vector<double>& from,
                                   const std::vector<double>& to, int steps);

}  // namespace shoestring
