#include "tools/bench/ratios.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace shoestring {
namespace {

double percentile(std::vector<double> values, double share) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  return values[static_cast<std::size_t>(std::lround(share * static_cast<double>(values.size() - 1)))];
}

}  // namespace

void Ratios::add(double ratio, double rate, Pace pace) {
  Kind& kind = pace == Pace::full ? full_ : slow_;
  kind.ratio.push_back(ratio);
  kind.rate.push_back(rate);
}

BenchRow Ratios::row(std::string name, std::string over, double goal, std::string unit) const {
  const Kind& told = kept() >= kFew || slow_.ratio.empty() ? full_ : slow_;
  return {.name = std::move(name),
          .over = std::move(over),
          .median = percentile(told.ratio, 0.5),
          .p10 = percentile(told.ratio, 0.1),
          .p90 = percentile(told.ratio, 0.9),
          .goal = goal,
          .absolute = percentile(told.rate, 0.5),
          .absolute_unit = std::move(unit),
          .kept = static_cast<int>(told.ratio.size()),
          .dropped = dropped_,
          .slow = static_cast<int>(slow_.ratio.size()),
          .slow_median = percentile(slow_.ratio, 0.5)};
}

}  // namespace shoestring
