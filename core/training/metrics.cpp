#include "core/training/metrics.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>

#include "core/budget/run_curve.h"
#include "kernels/base/append.h"
#include "kernels/base/check.h"
#include "kernels/base/file.h"
#include "kernels/base/printable.h"

namespace shoestring {
namespace {

constexpr std::int64_t kMetricsLimit = std::int64_t{4} << 30;

using Ordered = nlohmann::ordered_json;

// JSON has no NaN; a number that is not finite becomes a word.
Ordered number(double value) {
  if (std::isfinite(value)) return value;
  return std::isnan(value) ? "nan" : value > 0 ? "inf" : "-inf";
}

std::string hexadecimal(double value) { return fmt::format("{:a}", value); }

Ordered pairs(const std::vector<std::pair<std::string, double>>& values) {
  Ordered object = Ordered::object();
  for (const auto& [name, value] : values) object[name] = number(value);
  return object;
}

// The lines of `text` that an attempt going on after `last_step` keeps. What stands behind the last line feed is one if
// it is whole: a line that was cut off is no object.
struct Kept {
  std::string lines;
  std::int64_t steps = 0;  // that have one
};
Kept kept_lines(const std::string& text, std::int64_t last_step) {
  Kept kept;
  std::int64_t counted = 0;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t from = begin;
    const std::size_t end = std::min(text.find('\n', begin), text.size());
    const Ordered line = Ordered::parse(text.begin() + static_cast<std::ptrdiff_t>(begin),
                                        text.begin() + static_cast<std::ptrdiff_t>(end), nullptr, false);
    const bool sound = line.is_object() && line.contains("step") && line["step"].is_number_integer();
    // An evaluation at the last step is done anew: it may have come after the checkpoint.
    const bool anew = sound && (line.contains("evaluation") || line.contains("suites"));
    const std::int64_t limit = anew ? last_step - 1 : last_step;
    begin = end + 1;
    const std::int64_t step = sound ? line["step"].get<std::int64_t>() : 0;
    if (!sound || step > limit) continue;
    kept.lines.append(text, from, end - from).append("\n");
    if (anew || step <= counted) continue;
    ++kept.steps;
    counted = step;
  }
  return kept;
}

}  // namespace

MetricsLog::MetricsLog(const std::filesystem::path& run_directory, std::int64_t last_step, bool tensorboard,
                       double unix_seconds)
    : path_(run_directory / kMetricsFile) {
  missing_steps_ = last_step;
  if (type_of(path_) != std::filesystem::file_type::not_found) {
    const std::string text = read_file(path_, kMetricsLimit);
    const Kept kept = kept_lines(text, last_step);
    if (kept.lines != text) replace_file(path_, kept.lines);
    missing_steps_ -= kept.steps;
  }
  descriptor_ = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (descriptor_ < 0)
    fail(ExitCode::io, "{}: cannot be opened for appending: {}", path_.string(), system_reason(errno));
  if (tensorboard) events_ = std::make_unique<EventFile>(run_directory / "tensorboard", unix_seconds, last_step + 1);
}

MetricsLog::~MetricsLog() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

void MetricsLog::line(const std::string& text) { append(descriptor_, path_, text + "\n"); }

void MetricsLog::step(const StepMetrics& metrics) {
  Ordered json;
  json["step"] = metrics.step;
  json["phase"] = metrics.phase;
  json["tokens"] = metrics.tokens;
  json["learned_tokens"] = metrics.learned_tokens;
  json["sequences"] = metrics.sequences;
  json["loss"] = number(metrics.loss);
  json["loss_hex"] = hexadecimal(metrics.loss);
  if (metrics.mtp_loss != 0) json["mtp_loss"] = number(metrics.mtp_loss);
  json["gradient_norm"] = number(metrics.gradient_norm);
  json["gradient_norm_hex"] = hexadecimal(metrics.gradient_norm);
  json["learning_rate"] = metrics.learning_rate;
  if (metrics.expert_overload != 0) json["expert_overload"] = number(metrics.expert_overload);
  if (metrics.clipped_to > 0) json["clipped_to"] = metrics.clipped_to;
  if (!metrics.skipped.empty()) json["skipped"] = metrics.skipped;
  if (!metrics.stands_out.empty()) json["stands_out"] = metrics.stands_out;
  if (!metrics.went_back.empty()) json["went_back"] = metrics.went_back;
  json["clipped_steps"] = metrics.clipped_steps;
  json["skipped_steps"] = metrics.skipped_steps;
  if (!metrics.shares.empty()) json["quantisation"] = pairs(metrics.shares);
  Ordered timing = {{"attempt", metrics.attempt},
                    {"unix_seconds", metrics.unix_seconds},
                    {"step_seconds", metrics.step_seconds},
                    {"tokens_per_second", metrics.tokens_per_second},
                    {"gpu_hours", metrics.gpu_hours}};
  if (metrics.usd > 0) timing["usd"] = metrics.usd;
  timing["memory_bytes"] = metrics.memory_bytes;
  timing["utilisation"] = pairs(metrics.utilisation);
  json["timing"] = std::move(timing);
  line(json.dump(-1, ' ', false, Ordered::error_handler_t::replace));
  if (events_) {
    std::vector<std::pair<std::string, double>> values = {{"train/loss", metrics.loss},
                                                          {"train/gradient_norm", metrics.gradient_norm},
                                                          {"train/learning_rate", metrics.learning_rate},
                                                          {"train/tokens", static_cast<double>(metrics.tokens)},
                                                          {"speed/tokens_per_second", metrics.tokens_per_second},
                                                          {"budget/gpu_hours", metrics.gpu_hours}};
    values.emplace_back("guard/clipped_steps", static_cast<double>(metrics.clipped_steps));
    values.emplace_back("guard/skipped_steps", static_cast<double>(metrics.skipped_steps));
    if (metrics.mtp_loss != 0) values.emplace_back("train/mtp_loss", metrics.mtp_loss);
    if (metrics.expert_overload != 0) values.emplace_back("experts/overload", metrics.expert_overload);
    for (const auto& [name, value] : metrics.shares) values.emplace_back("quantisation/" + name, value);
    events_->scalars(metrics.unix_seconds, metrics.step, values);
  }
}

void MetricsLog::evaluation(const EvaluationMetrics& metrics, double unix_seconds) {
  Ordered json;
  json["step"] = metrics.step;
  json["evaluation"] = {
      {"tokens", metrics.tokens}, {"loss", number(metrics.loss)}, {"loss_hex", hexadecimal(metrics.loss)}};
  std::vector<std::pair<std::string, double>> values = {{"validation/loss", metrics.loss}};
  if (metrics.bits_per_byte > 0) {
    json["evaluation"]["bits_per_byte"] = number(metrics.bits_per_byte);
    values.emplace_back("validation/bits_per_byte", metrics.bits_per_byte);
  }
  line(json.dump());
  if (events_) events_->scalars(unix_seconds, metrics.step, values);
}

void MetricsLog::suites(const SuiteResult& result, double unix_seconds) {
  Ordered scores = Ordered::array();
  std::vector<std::pair<std::string, double>> values;
  for (const SuiteScore& score : result.scores) {
    Ordered one = {{"task", score.task},
                   {"metric", score.metric},
                   {"requests", score.requests},
                   {"value", number(score.value)},
                   {"value_hex", hexadecimal(score.value)}};
    if (score.error >= 0) one["error"] = number(score.error);
    scores.push_back(std::move(one));
    values.emplace_back("suites/" + score.task + "/" + score.metric, score.value);
  }
  Ordered json;
  json["step"] = result.step;
  json["suites"] = {{"phase", result.phase},
                    {"requests", result.requests},
                    {"all_requests", result.all_requests},
                    {"scores", std::move(scores)}};
  line(json.dump(-1, ' ', false, Ordered::error_handler_t::replace));
  if (events_) events_->scalars(unix_seconds, result.step, values);
}

ProgressLine::ProgressLine(std::FILE* out, bool alone) : out_(out), terminal_(alone && isatty(fileno(out)) != 0) {}

void ProgressLine::update(const std::string& text, double monotonic_seconds) {
  constexpr double kTerminalSeconds = 0.2;
  constexpr double kPlainSeconds = 10;
  if (monotonic_seconds - last_ < (terminal_ ? kTerminalSeconds : kPlainSeconds)) return;
  last_ = monotonic_seconds;
  if (terminal_) {
    write("\r\x1b[2K" + printable(text));
    shown_ = true;
  } else {
    write(printable(text) + "\n");
  }
}

void ProgressLine::say(const std::string& text) {
  write((shown_ ? "\r\x1b[2K" : "") + printable(text) + "\n");
  shown_ = false;
}

void ProgressLine::wipe() {
  if (shown_) write("\r\x1b[2K");
  shown_ = false;
}

// `fmt::print` would throw: no reason to stop a run.
void ProgressLine::write(const std::string& text) {
  std::fputs(text.c_str(), out_);
  std::fflush(out_);
}

std::string progress_text(const ProgressFacts& facts) {
  std::string text = fmt::format("{} step {}  loss {:.4f}", facts.phase, facts.step, facts.loss);
  if (facts.held_out_loss > 0) text += fmt::format(" (held out {:.4f})", facts.held_out_loss);
  text += fmt::format("  {:.0f} tokens/s  {:.4f}", facts.tokens_per_second, facts.spent_gpu_hours);
  text += std::isfinite(facts.cap_gpu_hours) ? fmt::format(" of {:.4f} GPU-hours", facts.cap_gpu_hours) : " GPU-hours";
  if (facts.usd > 0) text += fmt::format("  ${:.4f}", facts.usd);
  if (facts.usd > 0 && std::isfinite(facts.usd_left))
    text += fmt::format(", ${:.4f} left", std::max(0.0, facts.usd_left));
  if (facts.seconds_left >= 0) {
    const auto seconds = std::llround(facts.seconds_left);
    text += seconds >= 3600 ? fmt::format("  {}h{:02}m left", seconds / 3600, seconds / 60 % 60)
                            : fmt::format("  {}:{:02} left", seconds / 60, seconds % 60);
  }
  return text;
}

}  // namespace shoestring
