// The report as one screen of plain text.
#include <fmt/core.h>

#include <algorithm>
#include <cmath>

#include "core/budget/report.h"
#include "core/budget/run_summary.h"
#include "core/recipe/units.h"

namespace shoestring {
namespace {

constexpr std::size_t kAttemptsShown = 6;
constexpr int kBar = 24;
constexpr double kLateShown = 0.1;  // seconds waited for a shard

/// Names and messages come from files: nothing in them may steer a terminal.
std::string plain(const std::string& text, std::size_t longest = 200) {
  std::string result;
  for (const char letter : text.substr(0, longest)) {
    const auto code = static_cast<unsigned char>(letter);
    result += code < 0x20 || code == 0x7f ? '?' : letter;
  }
  return result;
}

std::string hours(double value) { return rounded(value, 4); }

std::string bar(double share) {
  return std::string(static_cast<std::size_t>(std::lround(std::clamp(share, 0.0, 1.0) * kBar)), '#');
}

std::string head(const Report& r) {
  std::string text = fmt::format("run {}: {}, {} attempt{}{}\n", plain(r.run), plain(state_words(r.state)),
                                 r.attempts.size(), r.attempts.size() == 1 ? "" : "s",
                                 r.hardware.empty() ? "" : fmt::format(" on {}", plain(r.hardware)));
  if (!r.text.empty()) text += fmt::format("  {}\n", plain(r.text));
  const std::string cap = r.cap_gpu_hours <= 0 ? " (no cap)"
                                               : fmt::format(" of {} ({:.1f}%, {})", hours(r.cap_gpu_hours),
                                                             100 * r.spent_share(), plain(r.cap_from));
  text += fmt::format("  GPU-hours  {}{}\n", hours(r.spent.gpu_hours), cap);
  if (r.price) {
    const bool capped = r.cap_from == "budget.usd";
    text += fmt::format("  money      ${}{} at ${} per GPU-hour ({}, {}){}\n", hours(r.spent.usd),
                        capped ? fmt::format(" of ${}", hours(r.cap_usd())) : "", rounded(r.price->usd_per_gpu_hour),
                        plain(r.price->source), plain(r.price->date),
                        r.other_prices ? "; earlier attempts at their own price" : "");
  }
  if (r.spent.kwh > 0) {
    const bool capped = r.cap_from == "budget.kwh";
    text += fmt::format("  energy     {}{} kWh, modelled: GPU-hours x {} W that the hardware file states\n",
                        hours(r.spent.kwh), capped ? fmt::format(" of {}", hours(r.cap_kwh())) : "", rounded(r.watts));
  }
  text += fmt::format("  bought     {} tokens", rounded(static_cast<double>(r.tokens)));
  if (r.learns_a_part()) text += fmt::format(", {} of them learned,", rounded(static_cast<double>(r.learned_tokens)));
  text += " in " + steps_words(r);
  if (r.parameters > 0) {
    text += fmt::format("; {} parameters, {} active", rounded(static_cast<double>(r.parameters)),
                        rounded(static_cast<double>(r.active_parameters)));
  }
  text += '\n';
  if (r.clipped + r.skipped > 0) text += fmt::format("  guard      {}\n", guard_words(r));
  if (r.train_loss != 0) {
    const char* unit = r.learns_a_part() ? " nats per learned token" : " nats per token";
    text += fmt::format("  loss       {}{}, last step\n", loss_words(r.train_loss),
                        std::isfinite(r.train_loss) ? unit : "");
  }
  if (r.validation) {
    text += fmt::format("  held out   {} (step {})\n", held_out_words(r.validation->loss, r.validation->bits_per_byte),
                        r.validation->step);
    if (r.validation->sequences < r.validation->all_sequences) {
      text += fmt::format(
          "             on {} of {} held-out sequences, spread evenly: the budget, or evaluation.cap_share, had no "
          "room for more\n",
          r.validation->sequences, r.validation->all_sequences);
    }
  }
  return text;
}

std::string where_it_went(const Report& report) {
  const double total = report.charged.total();
  std::string text = "\n  where the time went      GPU-hours   share\n";
  for (int i = 0; i < kCategories; ++i) {
    const auto category = static_cast<Category>(i);
    const double seconds = report.charged[category];
    if (seconds <= 0) continue;
    const double share = total > 0 ? seconds / total : 0;
    text +=
        fmt::format("    {:<22} {:>9} {:>6.1f}%  {}\n", name(category), hours(seconds / 3600), 100 * share, bar(share));
  }
  return text;
}

std::string by_phase(const Report& report) {
  if (report.phases.empty()) return {};
  std::string text = fmt::format("\n  {:<25} {:>9} {:>9} {:>8}{}\n", "phase", "GPU-hours", "tokens", "steps",
                                 report.price ? "      usd" : "");
  for (const PhaseCost& phase : report.phases) {
    text += fmt::format("    {:<23} {:>9} {:>9} {:>8}", plain(phase.name, 23), hours(phase.gpu_hours),
                        rounded(static_cast<double>(phase.tokens)), phase.steps);
    if (report.price) text += fmt::format(" {:>8}", hours(phase.usd));
    text += '\n';
  }
  return text;
}

std::string by_attempt(const Report& report) {
  const std::size_t count = report.attempts.size();
  if (count < 2) return {};
  std::string text =
      fmt::format("\n  {:<9} {:>5} {:>9} {:>9} {:>15}  {}\n", "attempt", "ranks", "GPU-hours", "lost", "steps", "end");
  if (count > kAttemptsShown) text += fmt::format("    ... {} earlier\n", count - kAttemptsShown);
  for (std::size_t i = count > kAttemptsShown ? count - kAttemptsShown : 0; i < count; ++i) {
    const AttemptHistory& attempt = report.attempts[i];
    text += fmt::format("    {:<7} {:>5} {:>9} {:>9} {:>15}  {}\n", attempt.attempt, attempt.start.ranks,
                        hours(attempt.charged.total() / 3600), hours(attempt.charged[Category::lost] / 3600),
                        fmt::format("{}..{}", attempt.start.from_step, attempt.last().step), plain(attempt.reason));
  }
  return text;
}

std::string suites(const Report& report) {
  if (report.suites.empty()) return {};
  std::string text = fmt::format("\n  {:<24} {:<16} {:>8} {:>10} {:>8}\n", "questions asked after", "task", "answered",
                                 "value", "error");
  for (const SuiteResult& result : report.suites) {
    for (const SuiteScore& score : result.scores) {
      text += fmt::format("    {:<22} {:<16} {:>8} {:>10.4f} {:>8}  {}\n", plain(result.phase, 22),
                          plain(score.task, 16), score.requests, score.value,
                          score.error < 0 ? "-" : fmt::format("{:.4f}", score.error), plain(score.metric, 24));
    }
    if (result.requests < result.all_requests) {
      text += fmt::format(
          "    {} of {} questions, spread evenly: the budget, or evaluation.cap_share, had no room for more\n",
          result.requests, result.all_requests);
    }
  }
  return text;
}

std::string utilisation(const Report& report) {
  if (report.formats.empty()) return {};
  std::string text = "\n  utilisation: FLOPs done in the format / (GPU-seconds charged x FLOP/s of the device)\n";
  for (const FormatUse& use : report.formats) {
    const auto share = [](double value) {
      return value > 0 ? fmt::format("{:.2f}%", 100 * value) : std::string("rate unknown");
    };
    text += fmt::format("    {:<5} {:>9} FLOP  of peak {}, of achievable {}\n", name(use.format), rounded(use.flops),
                        share(use.of_peak), share(use.of_achievable));
  }
  return text;
}

std::string pipeline(const Report& report) {
  if (!report.pipeline) return {};
  const PipelineUse& use = *report.pipeline;
  return fmt::format(
      "\n  pipeline: {} on {} ranks, {} stages, {} micro-batches a group; bubble {:.1f}%, {:.1f}% by its list at the\n"
      "    stages' measured times; slowest stage {:+.1f}% of the mean ({} steps)\n",
      plain(use.schedule), use.ranks, use.stages, use.microbatches, 100 * use.bubble, 100 * use.simulated_bubble,
      100 * use.imbalance, use.steps);
}

std::string data(const Report& report) {
  if (!report.data) return {};
  const DataReading& read = *report.data;
  const double total = report.charged.total();
  std::string text =
      fmt::format("\n  data: waited {} device-seconds ({:.1f}%) for batches; read {} where the shards lie",
                  rounded(read.wait_seconds), total > 0 ? 100 * read.wait_seconds / total : 0,
                  reading_words(read.storage_bytes, read.storage_seconds));
  if (read.copy_bytes > 0)
    text += fmt::format(", {} from copies near by", reading_words(read.copy_bytes, read.copy_seconds));
  if (read.staged_bytes > 0) {
    text += fmt::format("; copied there {}", reading_words(read.staged_bytes, read.staged_seconds));
  }
  text += '\n';
  for (const LateShard& shard : read.late) {
    if (shard.seconds < kLateShown) continue;
    text += fmt::format("    {:>9} s  waited for {}\n", rounded(shard.seconds), plain(shard.path));
  }
  return text;
}

std::string experts(const Report& report) {
  const auto& all = report.max_violations;
  if (all.empty()) return {};
  const auto worst = std::max_element(all.begin(), all.end());
  return fmt::format("\n  experts: the fullest has {:.1f}% more than the mean load (MaxVio {:.3f}, mixture {} of {})\n",
                     100 * *worst, *worst, worst - all.begin(), all.size());
}

std::string foretold(const Report& report) {
  if (report.planned_otherwise) return "\n  its plan was made for another recipe: not compared\n";
  if (report.foretold.empty()) return {};
  std::string text =
      fmt::format("\n  {:<22} {:>10} {:>10} {:>8}\n", "predicted, actual", "predicted", "actual", "error");
  for (const Foretold& line : report.foretold) {
    text += fmt::format("    {:<20} {:>10} {:>10} {:>+7.1f}%\n", plain(line.what, 40), rounded(line.predicted),
                        rounded(line.actual), 100 * line.error());
  }
  return text;
}

}  // namespace

std::string loss_words(double loss) {
  return std::isfinite(loss) ? fmt::format("{:.4f}", loss) : std::string("not finite");
}

std::string held_out_words(double loss, double bits_per_byte) {
  if (!std::isfinite(loss)) return loss_words(loss);
  if (bits_per_byte == 0) return fmt::format("{:.4f} nats per learned token", loss);
  return fmt::format("{:.4f} nats per token = {:.4f} bits per byte", loss, bits_per_byte);
}

std::string report_text(const Report& report) {
  std::string text = head(report) + where_it_went(report) + by_phase(report) + suites(report) + by_attempt(report) +
                     utilisation(report) + pipeline(report) + data(report) + experts(report) + foretold(report);
  if (!report.compared.empty()) text += "\n" + comparison_text(report.compared);
  if (!report.untold.empty()) text += fmt::format("\n  {}\n", report.untold);
  if (report.damaged_lines > 0) {
    text += fmt::format("\n  {} damaged line{} of the ledger could not be read\n", report.damaged_lines,
                        report.damaged_lines == 1 ? "" : "s");
  }
  return text;
}

}  // namespace shoestring
