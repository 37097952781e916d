// A weighted mixture of sources as arithmetic: which source sample i comes from, and which of its samples that is.
//
// Sample i lands on the point (g * i + shift) mod 2^32, g odd and close to 2^32 over the golden ratio; each source owns
// an interval of points as wide as its weight. Such points are spread so evenly that every prefix holds each source's
// share to within a few samples, and how many of the first i points fall in an interval has a closed form (a floor
// sum, as fast as Euclid's algorithm). So there is no table, no state and no total length: a longer run begins with the
// shorter one's samples, and a resume costs the same anywhere.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace shoestring {

struct MixtureDraw {
  int source = 0;
  std::int64_t index = 0;  ///< how many earlier samples came from that source: its own sample counter
};

class Mixture {
 public:
  /// Weights are positive and need not sum to one; they are kept to 2^-32. Throws Error(usage) otherwise.
  Mixture(const std::vector<double>& weights, std::uint64_t seed);

  /// What sample `sample` (>= 0) is. A pure function.
  MixtureDraw draw(std::int64_t sample) const;
  /// The same for `out.size()` samples from `first` on; cheaper than one by one.
  void draw(std::int64_t first, std::span<MixtureDraw> out) const;
  /// How many of the samples [0, samples) come from `source`.
  std::int64_t count(int source, std::int64_t samples) const;
  /// Share of `source`, as a multiple of 2^-32.
  std::uint64_t share(int source) const;
  int sources() const { return static_cast<int>(begin_.size()) - 1; }

 private:
  int source_of(std::int64_t sample) const;

  std::vector<std::uint64_t> begin_;  ///< [sources + 1] interval bounds in 0 .. 2^32
  std::uint64_t shift_ = 0;
};

}  // namespace shoestring
