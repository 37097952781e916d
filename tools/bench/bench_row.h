// One line of `shoestring bench`: a ratio that says the same on a fast and on a slow day.
#pragma once

#include <string>
#include <utility>

namespace shoestring {

struct BenchRow {
  std::string name;   ///< "gemm bf16 2048x2048x2048"
  std::string over;   ///< what the ratio is over: "AMX calibration", "oneDNN 2.6 bf16", "1 thread"
  double median = 0;  ///< of the ratios; higher is better, unless at_most
  double p10 = 0;
  double p90 = 0;
  double goal = 0;            ///< the median must reach it; 0: told, not judged
  double absolute = 0;        ///< median of the measured rate itself ...
  std::string absolute_unit;  ///< ... in this unit: "TFLOP/s", "GB/s"
  int kept = 0;               ///< repetitions that count
  int dropped = 0;            ///< repetitions whose calibrations disagreed, or whose threads lost the processor
  int slow = 0;               ///< repetitions at slow pace: they count only where hardly one was not
  double slow_median = 0;     ///< of those
  bool at_most = false;       ///< the goal is an upper bound
  std::string lacking{};      ///< what this processor lacks for the row, which then has no figures: "no AMX"
};

/// A row that this processor cannot have.
inline BenchRow not_here(std::string name, std::string over, std::string lacking) {
  BenchRow row;
  row.name = std::move(name);
  row.over = std::move(over);
  row.lacking = std::move(lacking);
  return row;
}

}  // namespace shoestring
