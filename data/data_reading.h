// How training data came to the one who waits for it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace shoestring {

/// A shard that was not there when it was needed.
struct LateShard {
  std::string path;  ///< where it lies; of a copy near by, "PATH (its copy)"
  double seconds = 0;

  bool operator==(const LateShard&) const = default;
};

/// Of one consumer, or summed over several. Bytes and seconds are those of reads, whether anybody waited for them.
struct DataReading {
  double wait_seconds = 0;         ///< of the consumer, for batches that were not ready
  std::int64_t storage_bytes = 0;  ///< from where the shards lie
  double storage_seconds = 0;
  std::int64_t copy_bytes = 0;  ///< from copies on a disk near by
  double copy_seconds = 0;
  std::int64_t staged_bytes = 0;  ///< copied there
  double staged_seconds = 0;
  std::vector<LateShard> late{};  ///< longest first; their seconds are part of wait_seconds

  /// Keeps the `most` that were waited for the longest.
  void add(const DataReading& other, std::size_t most);
  bool operator==(const DataReading&) const = default;
};

inline constexpr std::size_t kLateShards = 5;  ///< that are named

}  // namespace shoestring
