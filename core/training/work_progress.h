// How far a command is with work that is measured in bytes, or counted: share, rate, time left, on the live line.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "core/training/metrics.h"

namespace shoestring {

/// One look at some work.
struct Progress {
  std::string doing;  ///< "writing shards"
  std::int64_t done_bytes = 0;
  std::int64_t all_bytes = 0;  ///< 0: not known; of what is not measured at all only `more` is shown
  std::string more = {};       ///< "7 tokens", behind the rest
  std::string counted = {};    ///< "requests": of such, not of bytes
};

/// Is told often how far some work is; may be empty.
using TellProgress = std::function<void(const Progress&)>;

/// "writing shards: 42 %, 120 MB of 280 MB, 12 MB/s, 14 s left, 7 tokens"; the rate is `bytes_since` in `seconds`.
std::string to_string(const Progress& progress, std::int64_t bytes_since, double seconds);

/// Pieces of work one after the other: rate and time left are of the present one alone.
class WorkPace {
 public:
  /// What the line says now; nothing within its first second, when it may be over soon.
  std::string text(const Progress& progress, double monotonic_seconds);

 private:
  std::string doing_;
  double began_ = 0;
  std::int64_t first_bytes_ = 0;
};

/// On stderr, and wiped at the end.
class WorkProgress {
 public:
  WorkProgress() : line_(stderr, true) {}
  ~WorkProgress() { line_.wipe(); }
  WorkProgress(const WorkProgress&) = delete;
  WorkProgress& operator=(const WorkProgress&) = delete;

  void show(const Progress& progress);
  /// A sentence of its own, above the line.
  void say(const std::string& text) { line_.say(text); }
  void wipe() { line_.wipe(); }

 private:
  ProgressLine line_;
  WorkPace pace_;
};

}  // namespace shoestring
