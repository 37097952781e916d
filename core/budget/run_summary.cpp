#include "core/budget/run_summary.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

#include "core/budget/report_page.h"
#include "core/recipe/units.h"
#include "kernels/base/json.h"

namespace shoestring {
namespace {

/// One fact of a run: its key in the document and in CSV, how people call it, its value. 0 is "not known" for those
/// that may be unknown.
struct Fact {
  const char* key;
  const char* words;
  std::function<double(const RunSummary&)> value;
  bool whole = false;
  bool money = false;
  bool may_be_unknown = false;
};

const std::vector<Fact>& facts() {
  using Run = const RunSummary&;
  static const std::vector<Fact> all = {
      {"attempts", "attempts", [](Run r) { return static_cast<double>(r.attempts); }, true},
      {"ranks", "devices", [](Run r) { return static_cast<double>(r.ranks); }, true},
      {"gpu_hours", "GPU-hours", [](Run r) { return r.gpu_hours; }},
      {"cap_gpu_hours", "cap", [](Run r) { return r.cap_gpu_hours; }, false, false, true},
      {"lost_gpu_hours", "lost", [](Run r) { return r.lost_gpu_hours; }},
      {"usd", "money", [](Run r) { return r.usd; }, false, true, true},
      {"kwh", "kWh", [](Run r) { return r.kwh; }, false, false, true},
      {"parameters", "parameters", [](Run r) { return static_cast<double>(r.parameters); }, true, false, true},
      {"active_parameters", "active", [](Run r) { return static_cast<double>(r.active_parameters); }, true, false,
       true},
      {"tokens", "tokens", [](Run r) { return static_cast<double>(r.tokens); }, true},
      {"steps", "steps", [](Run r) { return static_cast<double>(r.steps); }, true},
      {"tokens_per_gpu_hour", "tokens per GPU-hour", [](Run r) { return r.tokens_per_gpu_hour(); }, false, false, true},
      {"held_out_loss", "held-out loss", [](Run r) { return r.held_out_loss; }, false, false, true},
      {"bits_per_byte", "bits per byte", [](Run r) { return r.bits_per_byte; }, false, false, true},
  };
  return all;
}

bool known(const Fact& fact, double value) { return !fact.may_be_unknown || value > 0; }

std::string plain(const std::string& text, std::size_t longest) {
  std::string result;
  for (const char letter : text.substr(0, longest)) {
    const auto code = static_cast<unsigned char>(letter);
    result += code < 0x20 || code == 0x7f ? '?' : letter;
  }
  return result;
}

std::string quoted(const std::string& text) {
  std::string cell = text.find_first_of("=+-@\t\r") == 0 ? "'" : "";
  for (const char letter : text) {
    if (letter == '"') cell += '"';
    cell += letter;
  }
  return "\"" + cell + "\"";
}

}  // namespace

RunSummary summary_of(const Report& report) {
  return {.run = report.run,
          .project = report.project,
          .state = report.state,
          .hardware = report.hardware,
          .ranks = report.attempts.empty() ? 0 : report.attempts.back().start.ranks,
          .attempts = static_cast<std::int64_t>(report.attempts.size()),
          .gpu_hours = report.spent.gpu_hours,
          .cap_gpu_hours = report.cap_gpu_hours,
          .lost_gpu_hours = report.lost_gpu_hours(),
          .usd = report.spent.usd,
          .kwh = report.spent.kwh,
          .parameters = report.parameters,
          .active_parameters = report.active_parameters,
          .tokens = report.tokens,
          .steps = report.steps,
          .held_out_loss = report.validation ? report.validation->loss : 0,
          .bits_per_byte = report.validation ? report.validation->bits_per_byte : 0};
}

void compare(Report& report, const std::vector<Report>& others) {
  report.compared = {summary_of(report)};
  report.compared_curves = {report.curve};
  for (const Report& other : others) {
    report.compared.push_back(summary_of(other));
    report.compared_curves.push_back(other.curve);
  }
}

std::string summary_json(const RunSummary& run) {
  Json object =
      Json::object({{"run", run.run}, {"project", run.project}, {"state", run.state}, {"hardware", run.hardware}});
  for (const Fact& fact : facts()) {
    const double value = fact.value(run);
    object.add(fact.key, !known(fact, value) ? Json()
                         : fact.whole        ? Json(static_cast<std::int64_t>(value))
                                             : Json(value));
  }
  return object.dump();
}

std::string summaries_csv(std::span<const RunSummary> runs) {
  std::string text = "run,project,state,hardware";
  for (const Fact& fact : facts()) text += fmt::format(",{}", fact.key);
  text += "\r\n";
  for (const RunSummary& run : runs) {
    text += quoted(run.run) + "," + quoted(run.project) + "," + quoted(run.state) + "," + quoted(run.hardware);
    for (const Fact& fact : facts()) {
      const double value = fact.value(run);
      text += known(fact, value) ? fmt::format(",{}", value) : ",";
    }
    text += "\r\n";
  }
  return text;
}

std::string comparison_text(std::span<const RunSummary> runs) {
  constexpr std::size_t kWide = 18;
  const auto line = [&](const std::string& words, const std::function<std::string(const RunSummary&)>& cell) {
    std::string text = fmt::format("  {:<20}", words);
    for (const RunSummary& run : runs) text += fmt::format(" {:>{}}", cell(run), kWide);
    return text + "\n";
  };
  std::string text = line("run", [](const RunSummary& run) { return plain(run.run, kWide); });
  text += line("state", [](const RunSummary& run) { return plain(run.state, kWide); });
  text += line("hardware", [](const RunSummary& run) { return plain(run.hardware, kWide); });
  for (const Fact& fact : facts()) {
    text += line(fact.words, [&](const RunSummary& run) {
      const double value = fact.value(run);
      if (!std::isfinite(value)) return std::string("not finite");
      return known(fact, value) ? (fact.money ? "$" : "") + rounded(value) : std::string("-");
    });
  }
  return text;
}

std::string summaries_table(std::span<const RunSummary> runs, const std::string& pointer) {
  page::Table table{.caption = "Runs", .head = {"run", "project", "state", "hardware"}, .rows = {}, .texts = {1, 2, 3}};
  for (const Fact& fact : facts()) table.head.push_back(fact.words);
  for (std::size_t i = 0; i < runs.size(); ++i) {
    const RunSummary& run = runs[i];
    std::vector<std::string> row = {page::said(run.run, 60), page::said(run.project, 60), page::said(run.state, 40),
                                    page::said(run.hardware, 40)};
    for (const Fact& fact : facts()) {
      const double value = fact.value(run);
      const std::string at = fmt::format("{}{}/{}", pointer, i, fact.key);
      row.push_back(!known(fact, value) ? "–" : fact.money ? page::money(value, at) : page::amount(value, at));
    }
    table.rows.push_back(std::move(row));
  }
  return page::html(table);
}

}  // namespace shoestring
