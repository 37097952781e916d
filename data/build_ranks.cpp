#include "data/build_ranks.h"

#include <numeric>

namespace shoestring {

std::int64_t BuildRanks::sum(std::int64_t value) {
  const std::vector<std::int64_t> all = gather({&value, 1});
  return std::accumulate(all.begin(), all.end(), std::int64_t{0});
}

std::int64_t BuildRanks::sum_before(std::int64_t value) {
  const std::vector<std::int64_t> all = gather({&value, 1});
  return std::accumulate(all.begin(), all.begin() + rank(), std::int64_t{0});
}

}  // namespace shoestring
