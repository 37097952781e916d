// The cost report of a run, from what stands in its directory: the ledger (all of the bill), and where they are there
// plan.json (what was foretold), metrics.jsonl (curves) and recipe.recipe. One screen of text, a versioned JSON
// document (report.schema.json describes it), one self-contained HTML page. Works for a run that is running, failed or
// died.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "core/budget/ledger_history.h"
#include "core/budget/run_curve.h"

namespace shoestring {

inline constexpr std::string_view kReportSchema = "shoestring.report/1";

/// One row of the phase table.
struct PhaseCost {
  std::string name;
  double gpu_hours = 0;
  double usd = 0;  ///< at the price of the attempts it fell into; 0: no price
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

/// Something foretold, beside what came of it.
struct Foretold {
  std::string what;  ///< "GPU-hours", "tokens", "pretrain: GPU-hours"
  double predicted = 0;
  double actual = 0;
  double error() const { return (predicted - actual) / actual; }
};

/// How much was spent at a moment.
struct SpentAt {
  int attempt = 0;
  double hours = 0;      ///< wall-clock, since the first attempt began: waiting between attempts included
  double gpu_hours = 0;  ///< by the run up to then
};

/// An evaluation of weights that the run still has, and what had been spent by then.
struct EvaluatedAt {
  EvaluationResult result;
  double gpu_hours = 0;
};

/// A key of the recipe that is not what it is by default.
struct ChangedKey {
  std::string key;
  std::string value;
  std::string otherwise;  ///< its default
};

/// A run as one row (run_summary.h).
struct RunSummary {
  std::string run;
  std::string project;  ///< the run's name where the recipe names none
  std::string state;
  std::string hardware;
  int ranks = 0;  ///< of the last attempt
  std::int64_t attempts = 0;
  double gpu_hours = 0;
  double cap_gpu_hours = 0;   ///< 0: none
  double lost_gpu_hours = 0;  ///< of gpu_hours
  double usd = 0;             ///< 0: no price
  double kwh = 0;             ///< 0: power not known
  std::int64_t parameters = 0;
  std::int64_t active_parameters = 0;
  std::int64_t tokens = 0;
  std::int64_t steps = 0;
  double held_out_loss = 0;  ///< 0: never evaluated
  double bits_per_byte = 0;

  double tokens_per_gpu_hour() const { return gpu_hours > 0 ? static_cast<double>(tokens) / gpu_hours : 0; }
};

/// "2.8175", or "not finite".
std::string loss_words(double loss);
/// "2.8175 nats per token = 1.2247 bits per byte". Of conversations, of which some tokens only are predicted and bytes
/// say nothing: "2.8175 nats per learned token".
std::string held_out_words(double loss, double bits_per_byte);

struct Report {
  std::string run;
  std::string project;         ///< the run's name where the recipe names none
  std::string state;           ///< "done", "budget", "preempted", "failed", "died", "running", "empty"
  std::string text;            ///< the last error's
  Spent spent;                 ///< over all attempts, each at its own price and power; 0: no price, power not known
  double cap_gpu_hours = 0;    ///< 0: no cap
  std::string cap_from;        ///< the key that binds: "budget.usd"
  std::optional<Price> price;  ///< of the last attempt
  bool other_prices = false;   ///< an earlier attempt was charged at another price
  double watts = 0;            ///< of a device, as the hardware file states it; 0: not known
  CategorySeconds charged;
  std::vector<PhaseCost> phases;
  std::vector<AttemptHistory> attempts;
  std::int64_t tokens = 0;          ///< of text, read in training, that the run still has
  std::int64_t learned_tokens = 0;  ///< of those; 0: not known
  std::int64_t steps = 0;
  std::int64_t clipped = 0;                    ///< of these steps, by a gradient norm above what was applied
  std::int64_t skipped = 0;                    ///< of these steps: the weights stayed as they were
  std::int64_t returns = 0;                    ///< times the run went back to a checkpoint
  double train_loss = 0;                       ///< of the last step; 0: none; may be not finite
  std::optional<EvaluationResult> validation;  ///< the last one
  std::vector<EvaluatedAt> evaluations;
  std::vector<SuiteResult> suites;  ///< of weights that the run still has
  std::vector<FormatUse> formats;
  double ideal_share = 0;  ///< sum over formats of flops / peak, over the GPU-seconds charged
  std::vector<Foretold> foretold;
  bool planned_otherwise = false;  ///< there is a plan, but of another recipe: it is not compared
  std::vector<SpentAt> burn_down;  ///< at most 120
  Curve curve;
  std::string recipe_text;  ///< whole; empty: not there
  std::vector<ChangedKey> changed_keys;
  std::optional<PipelineUse> pipeline;  ///< of the last attempt that had one
  std::optional<DataReading> data;      ///< over all attempts
  std::vector<double> max_violations;   ///< MaxVio of each mixture, last known; empty: no experts
  int damaged_lines = 0;
  std::string untold;  ///< what the bill lacks (untold.h); empty: nothing is known to be missing
  std::int64_t parameters = 0;
  std::int64_t active_parameters = 0;
  double flops_per_token = 0;
  std::string hardware;
  std::vector<RunSummary> compared;  ///< this run, then those it was asked to be compared with; empty: not asked
  std::vector<Curve> compared_curves;

  // Each 0 where it is not known.
  double usd_of(double gpu_hours) const { return price ? price->usd(gpu_hours) : 0; }
  double spent_share() const { return cap_gpu_hours > 0 ? spent.gpu_hours / cap_gpu_hours : 0; }
  double cap_usd() const;  ///< what was spent, and the rest of the cap at the present price
  double cap_kwh() const;
  double lost_gpu_hours() const { return charged[Category::lost] / 3600; }
  double tokens_per_gpu_hour() const;
  /// Whether they are to be named apart: in any text the first token of a document is not learned.
  bool learns_a_part() const { return learned_tokens > 0 && 20 * learned_tokens < 19 * tokens; }
  double usd_per_billion_tokens() const;
};

/// Builds the report of `run_directory`. Throws Error(missing_input) if there is no ledger.
Report make_report(const std::filesystem::path& run_directory);
/// The part that the ledger alone gives.
Report make_report(const LedgerHistory& history);

/// Sets `others` beside the report's own run.
void compare(Report& report, const std::vector<Report>& others);

/// "finished on its budget", for people.
std::string state_words(const std::string& state);
/// "1.2 GB at 48 MB/s".
std::string reading_words(std::int64_t bytes, double seconds);
/// "6 steps, 5 of them skipped".
std::string steps_words(const Report& report);
/// "12 steps clipped, 3 skipped; 1 return to a checkpoint".
std::string guard_words(const Report& report);

std::string report_text(const Report& report);
std::string report_json(const Report& report);
/// `refresh_seconds` > 0: the page reads itself anew as often, for who rewrites it while the run goes on.
std::string report_html(const Report& report, int refresh_seconds = 0);

/// Writes report.json and report.html into `run_directory`, each by temporary file and rename.
void write_report(const std::filesystem::path& run_directory, const Report& report, int refresh_seconds = 0);

}  // namespace shoestring
