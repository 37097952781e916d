// RUN/metrics.prom: where the run stands now, in the text format of OpenMetrics, for node exporter's textfile collector
// (--collector.textfile.directory, or a link to the file from there). Rewritten as a whole by rename every ten seconds.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "core/training/metrics.h"

namespace shoestring {

inline constexpr std::string_view kGaugesFile = "metrics.prom";

struct RunGauges {
  std::string run;
  std::string project;  ///< empty: none
  int ranks = 1;
  bool running = true;
  StepMetrics step;                             ///< the last one
  std::optional<EvaluationMetrics> evaluation;  ///< the last one
  double cap_gpu_hours = 0;                     ///< infinite: none
  double seconds_left = -1;                     ///< to the planned end; below 0: not known
};

/// Metrics that are not known are left out.
std::string gauges_text(const RunGauges& gauges);

class GaugesFile {
 public:
  explicit GaugesFile(const std::filesystem::path& run_directory) : path_(run_directory / kGaugesFile) {}

  /// Writes when ten seconds have passed since the last time. A file that cannot be written is no reason to stop a run:
  /// the error is returned the first time, and forgotten.
  std::string write(const RunGauges& gauges, double monotonic_seconds);
  std::string write_now(const RunGauges& gauges);

 private:
  std::filesystem::path path_;
  double last_ = -1e9;
  bool failed_ = false;
};

}  // namespace shoestring
