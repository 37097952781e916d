// What can be seen of a run while it goes on: the line on the terminal, and metrics.prom.
#pragma once

#include <cstdio>
#include <filesystem>
#include <optional>
#include <string>

#include "core/recipe/recipe.h"
#include "core/training/metrics.h"
#include "core/training/run_gauges.h"
#include "core/training/work_progress.h"

namespace shoestring {

/// What neither a step nor an evaluation knows.
struct LiveFacts {
  double cap_gpu_hours = 0;  ///< infinite: none
  double usd_left = 0;       ///< of the cap; read only where the step has a price
  double seconds_left = 0;   ///< to the planned end; below 0: not known yet
};

class LiveView {
 public:
  LiveView(const RunSpec& run, int ranks, const std::filesystem::path& directory, std::FILE* out);

  void say(const std::string& text) { line_.say(text); }
  /// Work before the first step, or between steps.
  void working(const Progress& progress, double monotonic_seconds);
  void stepped(const StepMetrics& metrics, const LiveFacts& facts, double monotonic_seconds);
  void evaluated(const EvaluationMetrics& metrics) { gauges_.evaluation = metrics; }
  /// No step comes any more: metrics.prom says so.
  void ended();

 private:
  ProgressLine line_;
  WorkPace pace_;
  GaugesFile file_;
  RunGauges gauges_;
  bool stepped_ = false;
};

}  // namespace shoestring
