// The cost report of a run, from its ledger alone (and plan.json where there is one): one screen of text, a versioned
// JSON document, one self-contained HTML page. Works for a run that is running, failed or died.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "core/budget/ledger_history.h"
#include "core/budget/planner.h"

namespace shoestring {

inline constexpr std::string_view kReportSchema = "shoestring.report/1";

/// One row of the phase table.
struct PhaseCost {
  std::string name;
  double gpu_hours = 0;
  std::int64_t tokens = 0;
  std::int64_t steps = 0;
};

/// FLOPs done in one format and what share of the device they were.
/// of_peak = flops / (GPU-seconds charged x peak FLOP/s); of_achievable likewise. 0: rate unknown.
struct FormatUse {
  RateFormat format = RateFormat::fp32;
  double flops = 0;
  double of_peak = 0;
  double of_achievable = 0;
};

struct Report {
  std::string run;
  std::string state;  ///< "done", "budget", "preempted", "failed", "died", "running", "empty"
  std::string text;   ///< the last error's
  double spent_gpu_hours = 0;
  double cap_gpu_hours = 0;  ///< 0: no cap
  std::string cap_from;
  std::optional<Price> price;
  double kwh = 0;  ///< at the hardware's stated power; 0: not known
  CategorySeconds charged;
  std::vector<PhaseCost> phases;
  std::vector<AttemptHistory> attempts;
  std::int64_t tokens = 0;  ///< trained tokens the run still has
  std::int64_t steps = 0;
  std::int64_t clipped = 0;                    ///< of these steps, by a gradient norm above what was applied
  std::int64_t skipped = 0;                    ///< of these steps: the weights stayed as they were
  std::int64_t returns = 0;                    ///< times the run went back to a checkpoint
  double train_loss = 0;                       ///< of the last step; 0: none
  std::optional<EvaluationResult> validation;  ///< the last one
  std::vector<FormatUse> formats;
  double ideal_share = 0;  ///< sum over formats of flops / peak, over the GPU-seconds charged
  std::optional<Prediction> predicted;
  bool planned_otherwise = false;  ///< there is a plan, but of another recipe: it is not compared
  int damaged_lines = 0;
  std::int64_t parameters = 0;
  std::int64_t active_parameters = 0;
  double flops_per_token = 0;
  std::string hardware;
};

/// Builds the report of `run_directory`. Throws Error(missing_input) if there is no ledger.
Report make_report(const std::filesystem::path& run_directory);
Report make_report(const LedgerHistory& history, const std::optional<Prediction>& predicted);

/// "12 steps clipped, 3 skipped; 1 return to a checkpoint".
std::string guard_words(const Report& report);

std::string report_text(const Report& report);
std::string report_json(const Report& report);
std::string report_html(const Report& report);

/// Writes report.json and report.html into `run_directory`, each by temporary file and rename.
void write_report(const std::filesystem::path& run_directory, const Report& report);

}  // namespace shoestring
