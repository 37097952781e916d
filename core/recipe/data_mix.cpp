#include "core/recipe/data_mix.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string_view>

#include "core/recipe/units.h"

namespace shoestring {
namespace {

std::vector<std::string_view> words_of(std::string_view text) {
  std::vector<std::string_view> words;
  for (std::size_t begin = text.find_first_not_of(" \t"); begin != std::string_view::npos;) {
    const std::size_t end = std::min(text.find_first_of(" \t", begin), text.size());
    words.push_back(text.substr(begin, end - begin));
    begin = text.find_first_not_of(" \t", end);
  }
  return words;
}

// With a sum of 1, so that a line between two points is one between shares.
bool normalise(std::vector<double>& weights) {
  const double sum = std::accumulate(weights.begin(), weights.end(), 0.0);
  if (!(sum > 0)) return false;
  for (double& weight : weights) weight /= sum;
  return true;
}

std::string parse_point(std::string_view item, std::size_t sources, MixPoint& point) {
  const std::size_t colon = item.find(':');
  if (colon == std::string_view::npos) return fmt::format("'{}' is no point; write SHARE: WEIGHT WEIGHT ...", item);
  const std::vector<std::string_view> share = words_of(item.substr(0, colon));
  const Quantity at = parse_quantity(share.size() == 1 ? share.front() : std::string_view{}, Unit::fraction);
  if (!at.mistake.empty() || at.value < 0 || at.value > 1) {
    return fmt::format("'{}' does not begin with a share of the phase, 0 to 1", item);
  }
  point.share = at.value;
  const std::vector<std::string_view> weights = words_of(item.substr(colon + 1));
  if (weights.size() != sources) {
    return fmt::format("'{}' has {} weights, and there are {} sources", item, weights.size(), sources);
  }
  for (const std::string_view word : weights) {
    const Quantity weight = parse_quantity(word, Unit::none);
    if (!weight.mistake.empty() || weight.value < 0) return fmt::format("'{}' is no weight of at least 0", word);
    point.weights.push_back(weight.value);
  }
  return normalise(point.weights) ? "" : fmt::format("'{}' leaves no source", item);
}

}  // namespace

PhaseData phase_data(const Recipe& recipe, const PhaseSpec& phase) {
  const bool own = !phase.train.empty();  // what [data] says of its sources says nothing of others
  const auto pick = [&](const auto& mine, const auto& shared) -> const auto& {
    return own || !mine.empty() ? mine : shared;
  };
  return {own ? phase.train : recipe.data.train, pick(phase.mix, recipe.data.mix),
          pick(phase.most_epochs, recipe.data.most_epochs)};
}

std::string parse_mix(const PhaseData& data, std::vector<MixPoint>& points) {
  points.clear();
  if (data.mix.empty()) return {};
  points.emplace_back();
  for (const SourceSpec& source : data.train) points.front().weights.push_back(source.weight);
  normalise(points.front().weights);
  for (const std::string& item : data.mix) {
    MixPoint point;
    if (std::string mistake = parse_point(item, data.train.size(), point); !mistake.empty()) return mistake;
    if (point.share < points.back().share) return fmt::format("'{}' comes behind a later share", item);
    points.push_back(std::move(point));
  }
  return {};
}

std::string parse_most_epochs(const PhaseData& data, std::vector<double>& epochs) {
  constexpr double kMostEpochs = 1e6;
  epochs.clear();
  for (const std::string& item : data.most_epochs) {
    const Quantity most = parse_quantity(item, Unit::none);
    if (!most.mistake.empty() || most.value < 0 || most.value > kMostEpochs) {
      return fmt::format("'{}' is no number of epochs (0: any)", item);
    }
    epochs.push_back(most.value);
  }
  if (epochs.empty() || epochs.size() == data.train.size()) return {};
  return fmt::format("has {} limits, and there are {} sources", epochs.size(), data.train.size());
}

std::int64_t phase_samples(const Recipe& recipe, const PhaseSpec& phase) {
  switch (recipe.schedule.horizon) {
    case Horizon::tokens: return phase.sequence > 0 ? (phase.tokens + phase.sequence - 1) / phase.sequence : 0;
    case Horizon::steps: return phase.batch_ramp_from > 0 ? 0 : phase.steps * phase.global_batch;
    case Horizon::budget: break;
  }
  return 0;
}

// At a jump two points have one sample: the later one counts.
std::vector<MixturePoint> over_samples(const std::vector<MixPoint>& points, std::int64_t samples) {
  constexpr int kSteps = 32;  // of a line: each changes a share by 3% of what the whole line does
  std::vector<MixturePoint> over;
  const auto put = [&](MixturePoint point) {
    if (!over.empty() && over.back().first >= point.first) over.pop_back();
    over.push_back(std::move(point));
  };
  const auto sample_at = [&](double share) {
    return static_cast<std::int64_t>(std::llround(share * static_cast<double>(samples)));
  };
  for (std::size_t at = 1; at < points.size(); ++at) {
    const std::int64_t first = sample_at(points[at - 1].share);
    const std::int64_t length = sample_at(points[at].share) - first;
    const int steps = points[at - 1].weights == points[at].weights ? 1 : kSteps;
    for (MixturePoint& point : annealed(first, length, points[at - 1].weights, points[at].weights, steps)) {
      put(std::move(point));
    }
  }
  if (!points.empty()) put({sample_at(points.back().share), points.back().weights});
  return over;
}

}  // namespace shoestring
