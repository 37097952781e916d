// How far a command is with work that is measured in bytes, or counted: share, rate, time left, on the live line.
#pragma once

#include <cstdint>
#include <string>

#include "core/training/metrics.h"

namespace shoestring {

/// One look at some work.
struct Progress {
  std::string doing;  ///< "writing shards"
  std::int64_t done_bytes = 0;
  std::int64_t all_bytes = 0;  ///< 0: not known
  std::string more = {};       ///< "7 tokens", behind the rest
  std::string counted = {};    ///< "requests": of such, not of bytes
};

/// "writing shards: 42 %, 120 MB of 280 MB, 12 MB/s, 14 s left, 7 tokens"; the rate is `bytes_since` in `seconds`.
std::string to_string(const Progress& progress, std::int64_t bytes_since, double seconds);

/// On stderr. What is over in a second is not shown.
class WorkProgress {
 public:
  WorkProgress() : line_(stderr, true) {}
  /// Rate and time left are of this `doing` alone.
  void show(const Progress& progress);
  /// A sentence of its own, above the line.
  void say(const std::string& text) { line_.say(text); }

 private:
  ProgressLine line_;
  std::string doing_;
  double began_ = 0;
  std::int64_t first_bytes_ = 0;
};

}  // namespace shoestring
