#include "data/data_reading.h"

#include <algorithm>

namespace shoestring {

void DataReading::add(const DataReading& other, std::size_t most) {
  wait_seconds += other.wait_seconds;
  storage_bytes += other.storage_bytes;
  storage_seconds += other.storage_seconds;
  copy_bytes += other.copy_bytes;
  copy_seconds += other.copy_seconds;
  staged_bytes += other.staged_bytes;
  staged_seconds += other.staged_seconds;
  for (const LateShard& shard : other.late) {
    const auto known =
        std::find_if(late.begin(), late.end(), [&](const LateShard& one) { return one.path == shard.path; });
    if (known != late.end()) {
      known->seconds += shard.seconds;
    } else {
      late.push_back(shard);
    }
  }
  std::stable_sort(late.begin(), late.end(), [](const auto& a, const auto& b) { return a.seconds > b.seconds; });
  if (late.size() > most) late.resize(most);
}

}  // namespace shoestring
