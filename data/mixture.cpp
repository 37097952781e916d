#include "data/mixture.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "kernels/base/check.h"
#include "kernels/base/random.h"

namespace shoestring {
namespace {

constexpr std::uint64_t kPoints = std::uint64_t{1} << 32;
constexpr std::uint64_t kStep = 2654435769;  // odd, 2^32 over the golden ratio: the most even of such sequences

/// Sum over i in [0, n) of floor((a * i + b) / 2^32), modulo 2^64 (differences stay exact). n < 2^32, a = kStep and
/// b < 2^33 keep every product below 2^64, since a * n only falls from step to step.
std::uint64_t floor_sum(std::uint64_t n, std::uint64_t a, std::uint64_t b) {
  std::uint64_t m = kPoints;
  std::uint64_t sum = 0;
  while (true) {
    if (a >= m) {
      sum += n * (n - 1) / 2 * (a / m);
      a %= m;
    }
    if (b >= m) {
      sum += n * (b / m);
      b %= m;
    }
    const std::uint64_t top = a * n + b;
    if (top < m) return sum;
    // Count the lattice points under the line column by column instead of row by row: Euclid's step.
    n = top / m;
    b = top % m;
    std::swap(m, a);
  }
}

/// How many i in [0, n), n < 2^32, have (kStep * i + shift) mod 2^32 < bound.
std::uint64_t points_below(std::uint64_t n, std::uint64_t shift, std::uint64_t bound) {
  if (n == 0 || bound == 0) return 0;
  if (bound == kPoints) return n;
  // floor((x + 2^32 - bound) / 2^32) is one more than floor(x / 2^32) exactly when x mod 2^32 >= bound.
  return n - (floor_sum(n, kStep, shift + kPoints - bound) - floor_sum(n, kStep, shift));
}

}  // namespace

Mixture::Mixture(const std::vector<double>& weights, std::uint64_t seed) {
  if (weights.empty()) fail(ExitCode::usage, "a mixture needs at least one source");
  for (const double weight : weights) {
    if (!(weight > 0) || !std::isfinite(weight)) {
      fail(ExitCode::usage, "a source's weight must be positive, not {}; leave the source out instead", weight);
    }
  }
  const double total = std::accumulate(weights.begin(), weights.end(), 0.0);
  begin_.assign(weights.size() + 1, kPoints);
  double before = 0;
  for (std::size_t source = 0; source < weights.size(); ++source) {
    begin_[source] = static_cast<std::uint64_t>(std::llround(before / total * static_cast<double>(kPoints)));
    before += weights[source];
  }
  for (std::size_t source = 0; source < weights.size(); ++source) {
    if (begin_[source] >= begin_[source + 1]) {
      fail(ExitCode::usage, "source {} has weight {} of {}: below 2^-32, it would never be drawn", source,
           weights[source], total);
    }
  }
  shift_ = Random(seed, Purpose::mixture).u64(0) % kPoints;
}

std::uint64_t Mixture::share(int source) const {
  const auto at = static_cast<std::size_t>(source);
  return begin_[at + 1] - begin_[at];
}

std::int64_t Mixture::count(int source, std::int64_t samples) const {
  check(source >= 0 && source < sources() && samples >= 0, "mixture count of source {} in {} samples", source, samples);
  if (sources() == 1) return samples;
  const auto at = static_cast<std::size_t>(source);
  const auto n = static_cast<std::uint64_t>(samples);
  const std::uint64_t rest = n % kPoints;  // every full turn meets each point once
  return static_cast<std::int64_t>(n / kPoints * share(source) + points_below(rest, shift_, begin_[at + 1]) -
                                   points_below(rest, shift_, begin_[at]));
}

int Mixture::source_of(std::int64_t sample) const {
  const std::uint64_t point = (static_cast<std::uint64_t>(sample) * kStep + shift_) % kPoints;
  return static_cast<int>(std::upper_bound(begin_.begin(), begin_.end(), point) - begin_.begin()) - 1;
}

MixtureDraw Mixture::draw(std::int64_t sample) const {
  check(sample >= 0, "sample {} of a mixture", sample);
  const int source = source_of(sample);
  return {source, count(source, sample)};
}

void Mixture::draw(std::int64_t first, std::span<MixtureDraw> out) const {
  check(first >= 0, "sample {} of a mixture", first);
  std::vector<std::int64_t> next(static_cast<std::size_t>(sources()), -1);
  for (std::size_t at = 0; at < out.size(); ++at) {
    const int source = source_of(first + static_cast<std::int64_t>(at));
    std::int64_t& index = next[static_cast<std::size_t>(source)];
    if (index < 0) index = count(source, first);
    out[at] = {source, index++};
  }
}

}  // namespace shoestring
