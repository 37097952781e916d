#include "core/generation/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/base/check.h"

namespace shoestring {
namespace {

constexpr const char* kBroken =
    "the model's weights, or its arithmetic, are broken; take --precision fp32, or another checkpoint";

struct Ordered {
  std::int32_t id;
  float logit;
  bool operator<(const Ordered& other) const { return logit != other.logit ? logit > other.logit : id < other.id; }
};

float largest(std::span<const float> logits) {
  float most = -std::numeric_limits<float>::infinity();
  for (std::size_t id = 0; id < logits.size(); ++id) {
    if (!(logits[id] <= std::numeric_limits<float>::max())) {
      fail(ExitCode::non_finite, "sampling: the logit of token {} is {}: {}", id, logits[id], kBroken);
    }
    most = std::max(most, logits[id]);
  }
  if (most == -std::numeric_limits<float>::infinity()) {
    fail(ExitCode::non_finite, "sampling: no token has a finite logit: {}", kBroken);
  }
  return most;
}

/// Weights relative to the likeliest token.
class Weights {
 public:
  Weights(float most, double temperature) : most_(most), temperature_(temperature) {}
  double operator()(float logit) const { return std::exp((double{logit} - double{most_}) / temperature_); }

 private:
  float most_;
  double temperature_;
};

/// The fewest, likeliest first, whose weights add up to `share` of all. Sorts no more than it needs.
void cut_to_share(std::vector<Ordered>& order, double share, const Weights& weight) {
  double total = 0;
  for (const Ordered& each : order) total += weight(each.logit);
  double sum = 0;
  const auto size = static_cast<std::ptrdiff_t>(order.size());
  for (std::ptrdiff_t sorted = 0, next = 256; sorted < size; sorted = next, next *= 4) {
    next = std::min(next, size);
    std::partial_sort(order.begin() + sorted, order.begin() + next, order.end());
    for (std::ptrdiff_t i = sorted; i < next; ++i) {
      sum += weight(order[static_cast<std::size_t>(i)].logit);
      if (sum >= share * total) return order.resize(static_cast<std::size_t>(i) + 1);
    }
  }
}

}  // namespace

void check_sampling(const SamplingSettings& settings) {
  const auto range = [](bool holds, const char* what, double value, const char* wanted) {
    if (!holds) fail(ExitCode::usage, "sampling: {} is {}; it must be {}", what, value, wanted);
  };
  range(settings.temperature >= 0 && settings.temperature <= 100, "temperature", settings.temperature, "0 to 100");
  range(settings.top_k >= 0, "top_k", static_cast<double>(settings.top_k), "a number of tokens, or 0 for all of them");
  range(settings.top_p > 0 && settings.top_p <= 1, "top_p", settings.top_p, "above 0 and at most 1");
  range(settings.min_p >= 0 && settings.min_p <= 1, "min_p", settings.min_p, "0 to 1");
}

std::vector<Candidate> candidates(std::span<const float> logits, const SamplingSettings& settings) {
  check_sampling(settings);
  const float most = largest(logits);
  if (settings.temperature == 0) {
    return {{static_cast<std::int32_t>(std::find(logits.begin(), logits.end(), most) - logits.begin()), 1.0}};
  }
  std::vector<Ordered> order;
  order.reserve(logits.size());
  for (std::size_t id = 0; id < logits.size(); ++id) order.push_back({static_cast<std::int32_t>(id), logits[id]});
  const auto kept = static_cast<std::size_t>(settings.top_k);
  if (kept > 0 && kept < order.size()) {
    std::partial_sort(order.begin(), order.begin() + settings.top_k, order.end());
    order.resize(kept);
  }
  const Weights weight(most, settings.temperature);
  if (settings.top_p < 1) cut_to_share(order, settings.top_p, weight);
  std::vector<Candidate> result;
  double total = 0;
  for (const Ordered& each : order) {
    const double own = weight(each.logit);
    if (own <= 0 || own < settings.min_p) continue;
    result.push_back({each.id, own});
    total += own;
  }
  for (Candidate& candidate : result) candidate.probability /= total;
  return result;
}

std::int32_t draw(std::span<const Candidate> candidates, double uniform) {
  check(!candidates.empty() && uniform >= 0 && uniform < 1, "drawing {} of {} candidates", uniform, candidates.size());
  double left = uniform;
  for (const Candidate& candidate : candidates) {
    left -= candidate.probability;
    if (left < 0) return candidate.id;
  }
  return candidates.back().id;
}

}  // namespace shoestring
