#include "core/budget/report.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cmath>
#include <cstring>

#include "kernels/base/check.h"
#include "kernels/base/file.h"

namespace shoestring {
namespace {

constexpr double kSecondsPerHour = 3600;

void add_phases(const AttemptHistory& attempt, std::vector<PhaseCost>& phases) {
  for (const PhaseSpan& span : attempt.phases) {
    const std::string name = span.phase.empty() ? "(before the first step)" : span.phase;
    PhaseCost* cost = nullptr;
    for (PhaseCost& known : phases) {
      if (known.name == name) cost = &known;
    }
    if (cost == nullptr) cost = &phases.emplace_back(PhaseCost{name, 0, 0, 0});
    cost->gpu_hours += span.gpu_seconds / kSecondsPerHour;
    cost->tokens += span.tokens;
    cost->steps += span.steps;
  }
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

void write_file(const std::filesystem::path& file, const std::string& content) {
  const std::filesystem::path temporary = file.string() + ".tmp";
  const int descriptor = ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0644);
  bool good = descriptor >= 0;
  for (std::size_t done = 0; good && done < content.size();) {
    const ssize_t wrote = ::write(descriptor, content.data() + done, content.size() - done);
    if (wrote < 0 && errno == EINTR) continue;
    good = wrote > 0;
    if (good) done += static_cast<std::size_t>(wrote);
  }
  good = good && ::fsync(descriptor) == 0;
  const int error = errno;
  if (descriptor >= 0) ::close(descriptor);
  if (!good || ::rename(temporary.c_str(), file.c_str()) != 0) {
    const std::string reason = std::strerror(good ? errno : error);
    ::unlink(temporary.c_str());
    fail(ExitCode::io, "cannot write {}: {}", file.string(), reason);
  }
}

}  // namespace

Report make_report(const LedgerHistory& history, const std::optional<Prediction>& predicted) {
  Report report;
  report.predicted = predicted;
  report.damaged_lines = history.damaged_lines;
  report.attempts = history.attempts;
  report.state = "empty";
  if (history.attempts.empty()) return report;
  const AttemptHistory& latest = history.attempts.back();
  report.run = latest.start.run;
  report.state = latest.reason;
  report.text = latest.text;
  report.charged = history.charged();
  report.spent_gpu_hours = report.charged.total() / kSecondsPerHour;
  if (std::isfinite(latest.start.cap.gpu_hours)) report.cap_gpu_hours = latest.start.cap.gpu_hours;
  report.cap_from = latest.start.cap.from;
  report.price = latest.start.price;
  report.kwh = kwh(latest.start.hardware, report.spent_gpu_hours);
  report.tokens = latest.kept_tokens;
  report.steps = latest.kept_step;
  report.parameters = latest.start.parameters;
  report.active_parameters = latest.start.active_parameters;
  report.flops_per_token = latest.start.flops_per_token;
  report.hardware = latest.start.hardware.name;
  if (predicted && !predicted->recipe.empty() && predicted->recipe != latest.start.recipe_hash) {
    report.predicted.reset();
    report.planned_otherwise = true;
  }
  for (const AttemptHistory& attempt : history.attempts) {
    add_phases(attempt, report.phases);
    if (attempt.last().loss != 0) report.train_loss = attempt.last().loss;
    for (const AttemptProgress& point : attempt.points) {
      if (point.step > attempt.kept_step) break;
      report.clipped = point.clipped;
      report.skipped = point.skipped;
      report.returns = point.returns;
    }
    for (const EvaluationResult& result : attempt.evaluations) {
      if (result.step <= attempt.kept_step) report.validation = result;
    }
  }
  add_utilisation(report, latest.start.hardware);
  return report;
}

Report make_report(const std::filesystem::path& run_directory) {
  if (type_of(run_directory / kLedgerFile) == std::filesystem::file_type::not_found) {
    fail(ExitCode::missing_input, "{} holds no {}: no run was started there", run_directory.string(), kLedgerFile);
  }
  Report report = make_report(read_ledger(run_directory), read_prediction(run_directory));
  if (report.run.empty()) report.run = run_directory.filename().string();
  return report;
}

std::string guard_words(const Report& report) {
  std::string text =
      fmt::format("{} step{} clipped, {} skipped", report.clipped, report.clipped == 1 ? "" : "s", report.skipped);
  if (report.returns > 0) {
    text += fmt::format("; {} return{} to a checkpoint", report.returns, report.returns == 1 ? "" : "s");
  }
  return text;
}

void write_report(const std::filesystem::path& run_directory, const Report& report) {
  write_file(run_directory / "report.json", report_json(report));
  write_file(run_directory / "report.html", report_html(report));
}

}  // namespace shoestring
