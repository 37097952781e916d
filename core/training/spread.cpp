#include "core/training/spread.h"

#include <algorithm>
#include <utility>

namespace shoestring {
namespace {

double backwards(std::int64_t number) {
  double fraction = 0;
  double weight = 0.5;
  for (std::int64_t bits = number; bits > 0; bits /= 2, weight /= 2) fraction += static_cast<double>(bits % 2) * weight;
  return fraction;
}

}  // namespace

std::vector<SpreadPlace> spread_evenly(std::span<const std::int64_t> counts) {
  using Placed = std::pair<double, SpreadPlace>;
  const auto earlier = [](const Placed& a, const Placed& b) { return a.first < b.first; };
  std::vector<Placed> placed;
  for (std::size_t part = 0; part < counts.size(); ++part) {
    std::vector<Placed> own;
    for (std::int64_t number = 0; number < counts[part]; ++number) own.push_back({backwards(number), {part, number}});
    std::sort(own.begin(), own.end(), earlier);
    const auto count = static_cast<double>(own.size());
    for (std::size_t place = 0; place < own.size(); ++place) {
      placed.push_back({(static_cast<double>(place) + 0.5) / count, own[place].second});
    }
  }
  std::stable_sort(placed.begin(), placed.end(), earlier);
  std::vector<SpreadPlace> order;
  for (const Placed& each : placed) order.push_back(each.second);
  return order;
}

}  // namespace shoestring
