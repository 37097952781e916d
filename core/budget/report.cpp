#include "core/budget/report.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>

#include "core/budget/report_plan.h"
#include "core/budget/run_summary.h"
#include "core/budget/untold.h"
#include "core/recipe/explain.h"
#include "core/recipe/units.h"
#include "kernels/base/check.h"
#include "kernels/base/file.h"
#include "kernels/base/interrupted.h"

namespace shoestring {

namespace fs = std::filesystem;

namespace {

constexpr double kSecondsPerHour = 3600;

void add_phases(const AttemptHistory& attempt, Report& report) {
  for (const PhaseSpan& span : attempt.phases) {
    const std::string name = span.phase.empty() ? "(before the first step)" : span.phase;
    PhaseCost* cost = nullptr;
    for (PhaseCost& known : report.phases) {
      if (known.name == name) cost = &known;
    }
    if (cost == nullptr) cost = &report.phases.emplace_back(PhaseCost{.name = name});
    const double hours = span.gpu_seconds / kSecondsPerHour;
    cost->gpu_hours += hours;
    cost->usd += attempt.start.price ? attempt.start.price->usd(hours) : report.usd_of(hours);
    cost->tokens += span.tokens;
    cost->steps += span.steps;
  }
}

/// `before`: GPU-hours of the attempts before this one.
void add_attempt(const AttemptHistory& attempt, double before, Report& report) {
  add_phases(attempt, report);
  const std::optional<Price>& price = attempt.start.price;
  if (!attempt.max_violations.empty()) report.max_violations = attempt.max_violations;
  if (attempt.pipeline) report.pipeline = attempt.pipeline;
  if (attempt.data) {
    if (!report.data) report.data.emplace();
    report.data->add(*attempt.data, kLateShards);
  }
  report.other_prices |= price && report.price && price->usd_per_gpu_hour != report.price->usd_per_gpu_hour;
  if (attempt.last().loss != 0) report.train_loss = attempt.last().loss;
  for (const AttemptProgress& point : attempt.points) {
    if (point.step > attempt.kept_step) break;
    report.clipped = point.clipped;
    report.skipped = point.skipped;
    report.learned_tokens = point.learned_tokens;
    report.returns = point.returns;
  }
  for (const SuiteResult& result : attempt.suites) {
    if (result.step > attempt.kept_step) continue;
    std::erase_if(report.suites, [&](const SuiteResult& asked) { return asked.phase == result.phase; });
    report.suites.push_back(result);  // the last time holds
  }
  auto point = attempt.points.begin();
  for (const EvaluationResult& result : attempt.evaluations) {
    if (result.step > attempt.kept_step) continue;
    report.validation = result;
    while (point != attempt.points.end() && point->step < result.step) ++point;
    const double within = point == attempt.points.end() ? 0 : point->seconds.total() / kSecondsPerHour;
    report.evaluations.push_back({result, before + within});
  }
}

/// Every attempt from its begin to its end, with points between that are no closer than a hundredth of all.
void add_burn_down(Report& report) {
  constexpr double kParts = 100;
  const double first = report.attempts.front().begin_unix_seconds;
  const double all = report.charged.total() / kSecondsPerHour;
  double before = 0;
  for (const AttemptHistory& attempt : report.attempts) {
    const double begin = std::max(0.0, attempt.begin_unix_seconds - first) / kSecondsPerHour;
    const double hours = attempt.charged.total() / kSecondsPerHour;
    const auto add = [&](double within) {
      report.burn_down.push_back({attempt.attempt, begin + within / attempt.start.ranks, before + within});
    };
    add(0);
    for (const AttemptProgress& point : attempt.points) {
      const double within = point.seconds.total() / kSecondsPerHour;
      if (before + within - report.burn_down.back().gpu_hours > all / kParts && within < hours) add(within);
    }
    add(hours);
    before += hours;
  }
}

/// The recipe as the run took it, and which of its keys are not what they are by default.
void add_recipe(const fs::path& file, Report& report) {
  try {
    if (type_of(file) != fs::file_type::regular) return;
    report.recipe_text = read_file(file, kRecipeBytesLimit);
    const RecipeReading reading = read_recipe_text(report.recipe_text, file.string());
    for (RecipeDifference& key : changed_from_default(reading.recipe)) {
      report.changed_keys.push_back({std::move(key.key), std::move(key.now), std::move(key.before)});
    }
  } catch (const Error&) {  // not ours to complain about: the bill does not rest on it
    report.changed_keys.clear();
  }
}

/// What a start found missing from the bill, which its own lines make up for in time.
std::string noted_bill(const LedgerHistory& history) {
  const std::string about = fmt::format("{}: ", kBillNote);
  for (const AttemptHistory& attempt : history.attempts) {
    for (const std::string& note : attempt.notes) {
      if (note.starts_with(about)) return fmt::format("attempt {}: {}", attempt.attempt, note.substr(about.size()));
    }
  }
  return {};
}

void add_utilisation(Report& report, const Hardware& hardware) {
  PerFormat flops;
  for (const AttemptHistory& attempt : report.attempts) {
    for (std::size_t i = 0; i < flops.values.size(); ++i) flops.values[i] += attempt.last().flops.values[i];
  }
  const double seconds = report.charged.total();
  for (int i = 0; i < kRateFormats; ++i) {
    const auto format = static_cast<RateFormat>(i);
    if (flops[format] <= 0 || seconds <= 0) continue;
    const auto share = [&](double rate) { return rate > 0 ? flops[format] / (seconds * rate) : 0.0; };
    report.formats.push_back(
        {format, flops[format], share(hardware.peak_flops[format]), share(hardware.achievable_flops[format])});
    report.ideal_share += report.formats.back().of_peak;
  }
}

void write_file(const fs::path& file, const std::string& content) {
  const fs::path temporary = file.string() + ".tmp";
  const int descriptor =
      ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0644);
  bool good = descriptor >= 0;
  for (std::size_t done = 0; good && done < content.size();) {
    const ssize_t wrote = ::write(descriptor, content.data() + done, content.size() - done);
    if (wrote < 0 && errno == EINTR) continue;
    good = wrote > 0;
    if (good) done += static_cast<std::size_t>(wrote);
  }
  good = good && sync_descriptor(descriptor) == 0;
  const int error = errno;
  if (descriptor >= 0) ::close(descriptor);
  if (!good || ::rename(temporary.c_str(), file.c_str()) != 0) {
    const std::string reason = system_reason(good ? errno : error);
    ::unlink(temporary.c_str());
    fail(ExitCode::io, "cannot write {}: {}", file.string(), reason);
  }
}

}  // namespace

Report make_report(const LedgerHistory& history) {
  Report report;
  report.damaged_lines = history.damaged_lines;
  report.attempts = history.attempts;
  report.state = "empty";
  if (history.attempts.empty()) return report;
  const AttemptHistory& latest = latest_of(history.attempts);
  const AttemptStart& start = history.attempts.back().start;  // the newest cap, price and hardware
  report.run = start.run;
  report.project = start.project.empty() ? start.run : start.project;
  report.state = latest.reason;
  report.text = latest.text;
  report.charged = history.charged();
  if (std::isfinite(start.cap.gpu_hours)) report.cap_gpu_hours = start.cap.gpu_hours;
  report.cap_from = start.cap.from;
  for (const AttemptHistory& attempt : history.attempts) {  // one that stated none is charged at the newest
    if (attempt.start.price) report.price = attempt.start.price;
  }
  report.watts = start.hardware.watts;
  report.spent = history.spent(report.price, report.watts);
  report.tokens = latest.kept_tokens;
  report.steps = latest.kept_step;
  report.parameters = start.parameters;
  report.active_parameters = start.active_parameters;
  report.flops_per_token = start.flops_per_token;
  report.hardware = start.hardware.name;
  double seconds = 0;
  for (const AttemptHistory& attempt : history.attempts) {
    add_attempt(attempt, seconds / kSecondsPerHour, report);
    seconds += attempt.charged.total();
  }
  add_burn_down(report);
  add_utilisation(report, start.hardware);
  return report;
}

Report make_report(const fs::path& run_directory) {
  if (type_of(run_directory / kLedgerFile) == fs::file_type::not_found) {
    fail(ExitCode::missing_input, "{} holds no {}: no run was started there", run_directory.string(), kLedgerFile);
  }
  const LedgerHistory history = read_ledger(run_directory);
  Report report = make_report(history);
  if (report.run.empty()) report.run = report.project = run_directory.filename().string();
  compare_with_plan(run_directory, report);
  report.curve = read_curve(run_directory / kMetricsFile);
  report.untold = untold_bill(history, report.curve);
  if (report.untold.empty()) report.untold = noted_bill(history);
  add_recipe(run_directory / "recipe.recipe", report);
  return report;
}

double Report::cap_usd() const {
  return cap_gpu_hours > 0 && price ? spent.usd + price->usd(cap_gpu_hours - spent.gpu_hours) : 0;
}

double Report::cap_kwh() const {
  return cap_gpu_hours > 0 && watts > 0 ? spent.kwh + watts * (cap_gpu_hours - spent.gpu_hours) / 1000 : 0;
}

double Report::tokens_per_gpu_hour() const {
  return spent.gpu_hours > 0 ? static_cast<double>(tokens) / spent.gpu_hours : 0;
}

double Report::usd_per_billion_tokens() const { return tokens > 0 ? spent.usd / static_cast<double>(tokens) * 1e9 : 0; }

std::string state_words(const std::string& state) {
  if (state == "done") return "finished";
  if (state == "budget") return "finished on its budget";
  if (state == "preempted") return "saved and waiting to go on";
  if (state == "empty") return "not begun";
  if (state == "measured") return "measured, not begun";
  return state;
}

std::string reading_words(std::int64_t bytes, double seconds) {
  const auto moved = static_cast<double>(bytes);
  return fmt::format("{} MB{}", rounded(moved * 1e-6),
                     seconds > 0 ? fmt::format(" at {} MB/s", rounded(moved * 1e-6 / seconds)) : "");
}

std::string steps_words(const Report& report) {
  std::string text = fmt::format("{} steps", report.steps);
  if (report.skipped > 0) text += fmt::format(", {} of them skipped", report.skipped);
  return text;
}

std::string guard_words(const Report& report) {
  std::string text =
      fmt::format("{} step{} clipped, {} skipped", report.clipped, report.clipped == 1 ? "" : "s", report.skipped);
  if (report.returns > 0) {
    text += fmt::format("; {} return{} to a checkpoint", report.returns, report.returns == 1 ? "" : "s");
  }
  return text;
}

void write_report(const fs::path& run_directory, const Report& report, int refresh_seconds) {
  write_file(run_directory / "report.json", report_json(report));
  write_file(run_directory / "report.html", report_html(report, refresh_seconds));
}

}  // namespace shoestring
