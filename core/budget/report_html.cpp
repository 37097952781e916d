// The report as one page without scripts, links or outside resources. Every string is escaped: names and messages come
// from files that others may have written.
#include <fmt/core.h>

#include <algorithm>

#include "core/budget/report.h"
#include "core/recipe/units.h"

namespace shoestring {
namespace {

constexpr int kBarPixels = 360;

std::string escaped(std::string_view text) {
  std::string result;
  for (const char letter : text) {
    switch (letter) {
      case '&': result += "&amp;"; break;
      case '<': result += "&lt;"; break;
      case '>': result += "&gt;"; break;
      case '"': result += "&quot;"; break;
      case '\'': result += "&#39;"; break;
      default: {
        const auto code = static_cast<unsigned char>(letter);
        result += code < 0x20 || code == 0x7f ? ' ' : letter;
      }
    }
  }
  return result;
}

std::string row(std::initializer_list<std::string> cells, const char* tag = "td") {
  std::string text = "<tr>";
  for (const std::string& cell : cells) text += fmt::format("<{0}>{1}</{0}>", tag, escaped(cell));
  return text + "</tr>\n";
}

std::string summary(const Report& report) {
  std::string text = "<table>\n";
  const auto line = [&](const char* what, const std::string& value) { text += row({what, value}); };
  line("state", report.state + (report.text.empty() ? "" : ": " + report.text));
  line("GPU-hours",
       report.cap_gpu_hours > 0
           ? fmt::format("{} of {} ({:.1f}%, {})", rounded(report.spent_gpu_hours), rounded(report.cap_gpu_hours),
                         100 * report.spent_gpu_hours / report.cap_gpu_hours, report.cap_from)
           : rounded(report.spent_gpu_hours) + " (no cap)");
  if (report.price) {
    line("money", fmt::format("${} at ${} per GPU-hour ({}, {})", rounded(report.price->usd(report.spent_gpu_hours)),
                              rounded(report.price->usd_per_gpu_hour), report.price->source, report.price->date));
  }
  line("bought", fmt::format("{} tokens in {} steps", rounded(static_cast<double>(report.tokens)), report.steps));
  if (report.clipped + report.skipped > 0) line("guard", guard_words(report));
  if (report.validation) {
    line("held out", fmt::format("{:.4f} nats per token, {:.4f} bits per byte", report.validation->loss,
                                 report.validation->bits_per_byte));
  }
  if (report.predicted) line("predicted GPU-hours", rounded(report.predicted->gpu_hours));
  if (!report.hardware.empty()) line("hardware", report.hardware);
  return text + "</table>\n";
}

std::string bars(const Report& report) {
  const double total = report.charged.total();
  std::string drawn;
  int rows = 0;
  for (int i = 0; i < kCategories; ++i) {
    const auto category = static_cast<Category>(i);
    const double seconds = report.charged[category];
    if (seconds <= 0 || total <= 0) continue;
    const double share = seconds / total;
    const int y = 24 * rows++;
    drawn += fmt::format(
        "<text x=\"0\" y=\"{}\">{}</text><rect x=\"180\" y=\"{}\" width=\"{:.1f}\" height=\"16\" class=\"{}\"/>"
        "<text x=\"{:.1f}\" y=\"{}\">{} ({:.1f}%)</text>\n",
        y + 13, escaped(name(category)), y, std::max(1.0, share * kBarPixels),
        category == Category::lost ? "lost" : "kept", 188 + share * kBarPixels, y + 13,
        escaped(rounded(seconds / 3600)), 100 * share);
  }
  return fmt::format("<svg width=\"720\" height=\"{}\" role=\"img\" aria-label=\"GPU-hours by category\">\n{}</svg>\n",
                     24 * std::max(1, rows), drawn);
}

std::string tables(const Report& report) {
  std::string text = "<h2>Phases</h2><table>\n" + row({"phase", "GPU-hours", "tokens", "steps"}, "th");
  for (const PhaseCost& phase : report.phases) {
    text += row({phase.name, rounded(phase.gpu_hours), rounded(static_cast<double>(phase.tokens)),
                 std::to_string(phase.steps)});
  }
  text += "</table>\n<h2>Attempts</h2><table>\n" +
          row({"attempt", "host", "ranks", "GPU-hours", "lost", "steps", "end"}, "th");
  for (const AttemptHistory& attempt : report.attempts) {
    text += row({std::to_string(attempt.attempt), attempt.start.host, std::to_string(attempt.start.ranks),
                 rounded(attempt.charged.total() / 3600), rounded(attempt.charged[Category::lost] / 3600),
                 fmt::format("{} to {}", attempt.start.from_step, attempt.last().step), attempt.reason});
  }
  text += "</table>\n";
  if (report.formats.empty()) return text;
  text +=
      "<h2>Utilisation</h2><p>FLOPs done in the format / (GPU-seconds charged &times; FLOP/s of the "
      "device)</p><table>\n" +
      row({"format", "FLOPs", "of peak", "of achievable"}, "th");
  for (const FormatUse& use : report.formats) {
    const auto share = [](double value) {
      return value > 0 ? fmt::format("{:.2f}%", 100 * value) : std::string("unknown");
    };
    text += row({std::string(name(use.format)), rounded(use.flops), share(use.of_peak), share(use.of_achievable)});
  }
  return text + "</table>\n";
}

constexpr const char* kHead =
    "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n"
    "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
    "<style>body{font:15px/1.5 sans-serif;margin:2em auto;max-width:46em;color:#222}"
    "table{border-collapse:collapse;margin:.5em 0}td,th{padding:.15em .8em .15em 0;text-align:left;"
    "border-bottom:1px solid #ddd}svg text{font:13px sans-serif}.kept{fill:#4878a8}.lost{fill:#b04a3a}</style>\n";

}  // namespace

std::string report_html(const Report& report) {
  return fmt::format(
      "{}<title>{}: cost report</title></head><body>\n<h1>{}</h1>\n{}<h2>Where the GPU-hours "
      "went</h2>\n{}{}</body></html>\n",
      kHead, escaped(report.run), escaped(report.run), summary(report), bars(report), tables(report));
}

}  // namespace shoestring
