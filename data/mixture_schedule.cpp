#include "data/mixture_schedule.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "kernels/base/check.h"

namespace shoestring {
namespace {

void require_weights(const MixturePoint& point, std::size_t sources) {
  const bool counts =
      point.weights.size() == sources &&
      std::all_of(point.weights.begin(), point.weights.end(), [](double w) { return w >= 0 && std::isfinite(w); });
  const bool any = std::any_of(point.weights.begin(), point.weights.end(), [](double w) { return w > 0; });
  if (!counts || !any) {
    fail(ExitCode::usage,
         "a mixture of {} sources cannot have the weights {} from sample {} on: it must have one a source, none "
         "negative, one above 0",
         sources, fmt::join(point.weights, ", "), point.first);
  }
}

// The first number of samples at which a part has given `most`, which it has after `enough`: a count only grows.
std::int64_t samples_until(const Mixture& mixture, int part, std::int64_t most, std::int64_t enough) {
  std::int64_t low = 0;
  while (enough - low > 1) {
    const std::int64_t middle = low + (enough - low) / 2;
    (mixture.count(part, middle) >= most ? enough : low) = middle;
  }
  return enough;
}

constexpr std::int64_t kLongest = std::int64_t{1}
                                  << 46;  // samples within which a limit is looked for: more than any run has

}  // namespace

MixtureSchedule::MixtureSchedule(const std::vector<MixturePoint>& points, const std::vector<std::int64_t>& most,
                                 std::uint64_t seed)
    : most_(most) {
  if (points.empty()) fail(ExitCode::usage, "a mixture needs at least one source");
  const std::size_t sources = points.front().weights.size();
  sources_ = static_cast<int>(sources);
  check(most_.empty() || most_.size() == sources, "{} limits of {} sources", most_.size(), sources);
  for (std::size_t at = 0; at < points.size(); ++at) {
    require_weights(points[at], sources);
    const std::int64_t before = at == 0 ? -1 : points[at - 1].first;
    check(at == 0 ? points[at].first == 0 : points[at].first > before, "point {} of a mixture begins at sample {}", at,
          points[at].first);
  }
  for (std::size_t at = 0; at < points.size() && end_ == kNoLimit; ++at) {
    add_spans(points[at].first, at + 1 < points.size() ? points[at + 1].first : kNoLimit, points[at].weights, seed);
  }
}

// The spans of one point's weights: one, or more where sources reach their limits on the way.
void MixtureSchedule::add_spans(std::int64_t first, std::int64_t end, const std::vector<double>& weights,
                                std::uint64_t seed) {
  while (first < end) {
    std::vector<std::int64_t> given(weights.size(), 0);
    for (int source = 0; source < sources_; ++source) {
      given[static_cast<std::size_t>(source)] = spans_.empty() ? 0 : count(source, first);
    }
    std::vector<int> taking_part;
    std::vector<double> own;
    bool limited = false;
    for (std::size_t source = 0; source < weights.size(); ++source) {
      const std::int64_t most = most_of(static_cast<int>(source));
      if (weights[source] <= 0 || given[source] >= most) continue;
      taking_part.push_back(static_cast<int>(source));
      own.push_back(weights[source]);
      limited = limited || most != kNoLimit;
    }
    if (taking_part.empty()) {
      end_ = first;
      return;
    }
    Span span{first, std::move(taking_part), std::move(given), Mixture(own, seed)};
    std::int64_t length = end - first;
    for (std::size_t part = 0; limited && part < span.taking_part.size(); ++part) {
      const int source = span.taking_part[part];
      if (most_of(source) == kNoLimit) continue;
      const std::int64_t left = most_of(source) - span.given[static_cast<std::size_t>(source)];
      const std::int64_t enough = std::min(length, kLongest);
      if (span.mixture.count(static_cast<int>(part), enough) < left) continue;
      length = samples_until(span.mixture, static_cast<int>(part), left, enough);
    }
    spans_.push_back(std::move(span));
    if (end == kNoLimit && length == end - first) return;
    first += length;
  }
}

const MixtureSchedule::Span& MixtureSchedule::span_of(std::int64_t sample) const {
  check(sample >= 0, "sample {} of a mixture", sample);
  const auto behind = std::upper_bound(spans_.begin(), spans_.end(), sample,
                                       [](std::int64_t at, const Span& span) { return at < span.first; });
  return *(behind - 1);
}

MixtureDraw MixtureSchedule::draw(std::int64_t sample) const {
  MixtureDraw drawn;
  draw(sample, {&drawn, 1});
  return drawn;
}

void MixtureSchedule::draw(std::int64_t first, std::span<MixtureDraw> out) const {
  if (first > end_ || static_cast<std::int64_t>(out.size()) > end_ - first) {
    fail(ExitCode::bad_data,
         "all sources have given as many epochs as they may after {} samples; allow more, or end the phase before",
         end_);
  }
  while (!out.empty()) {
    const Span& span = span_of(first);
    const bool last = &span == &spans_.back();
    const std::int64_t rest = last ? kNoLimit : (&span)[1].first - first;
    const auto some = out.first(static_cast<std::size_t>(std::min<std::int64_t>(rest, std::ssize(out))));
    span.mixture.draw(first - span.first, some);
    for (MixtureDraw& drawn : some) {
      drawn.source = span.taking_part[static_cast<std::size_t>(drawn.source)];
      drawn.index += span.given[static_cast<std::size_t>(drawn.source)];
    }
    out = out.subspan(some.size());
    first += std::ssize(some);
  }
}

std::int64_t MixtureSchedule::count(int source, std::int64_t samples) const {
  check(source >= 0 && source < sources_, "source {} of {} in a mixture", source, sources_);
  samples = std::min(samples, end_);
  const Span& span = span_of(std::max<std::int64_t>(0, samples - 1));
  std::int64_t given = span.given[static_cast<std::size_t>(source)];
  for (std::size_t part = 0; part < span.taking_part.size(); ++part) {
    if (span.taking_part[part] == source) given += span.mixture.count(static_cast<int>(part), samples - span.first);
  }
  return given;
}

std::vector<MixturePoint> annealed(std::int64_t first, std::int64_t samples, const std::vector<double>& from,
                                   const std::vector<double>& to, int steps) {
  check(samples >= 0 && steps >= 1 && from.size() == to.size(), "annealing over {} samples in {} steps", samples,
        steps);
  std::vector<MixturePoint> points;
  for (int step = 0; step < steps; ++step) {
    const std::int64_t begin = first + samples / steps * step + samples % steps * step / steps;
    if (!points.empty() && begin == points.back().first) continue;
    MixturePoint point{begin, from};
    const double share = (step + 0.5) / steps;
    for (std::size_t source = 0; source < from.size(); ++source) {
      point.weights[source] += share * (to[source] - from[source]);
    }
    points.push_back(std::move(point));
  }
  return points;
}

}  // namespace shoestring
