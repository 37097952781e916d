// The bill of a run's page: where the hours went, by phase, by attempt, against the plan; and what it rests on.
#include <fmt/core.h>

#include <algorithm>
#include <cmath>

#include "core/budget/report_charts.h"
#include "core/budget/report_page.h"
#include "core/budget/report_sections.h"
#include "core/budget/run_summary.h"
#include "core/recipe/units.h"

namespace shoestring::page {
namespace {

constexpr std::size_t kAttemptsShown = 24;
constexpr std::size_t kNotesShown = 24;

std::string words_of(Category category) {
  std::string words(name(category));
  std::replace(words.begin(), words.end(), '_', ' ');
  return words;
}

/// A row of amounts in one unit, as cost tables are written: 2664K, 119K, 5K.
struct RowUnit {
  double size = 1;
  const char* name = "";
};
RowUnit hours_unit(double total) { return total >= 1e5 ? RowUnit{1e3, "K"} : RowUnit{}; }
RowUnit money_unit(double total) {
  return total >= 1e6 ? RowUnit{1e6, "M"} : total >= 1e5 ? RowUnit{1e3, "K"} : RowUnit{};
}

std::string in_unit(double value, RowUnit unit) {
  if (unit.size == 1) return rounded(value);
  std::string text = fmt::format("{:.3f}", value / unit.size);
  text.erase(text.find_last_not_of('0') + 1);
  if (text.back() == '.') text.pop_back();
  return text + unit.name;
}

}  // namespace

std::string where_it_went(const Report& report) {
  const double total = report.charged.total();
  if (total <= 0) return {};
  std::vector<int> order;
  for (int i = 0; i < kCategories; ++i) {
    if (report.charged[static_cast<Category>(i)] > 0) order.push_back(i);
  }
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) {
    return report.charged[static_cast<Category>(a)] > report.charged[static_cast<Category>(b)];
  });
  Table table{
      .caption = "GPU-hours by category", .head = {"category", "", "GPU-hours", "share"}, .rows = {}, .texts = {1}};
  for (const int i : order) {
    const auto category = static_cast<Category>(i);
    const double hours = report.charged[category] / 3600;
    const double part = report.charged[category] / total;
    const char* look = category == Category::lost ? "lost" : category == Category::compute ? "kept" : "spare";
    table.rows.push_back({words_of(category),
                          charts::bar({{part, look, words_of(category)}}, 1, fmt::format("{:.1f}%", 100 * part)),
                          amount(hours, "/categories/" + std::string(name(category))),
                          share(part, "/category_shares/" + std::string(name(category)))});
  }
  return section("Where the GPU-hours went", html(table));
}

std::string by_phase(const Report& report) {
  if (report.phases.empty()) return {};
  Table table{.caption = "Costs by phase", .head = {"training costs"}, .rows = {}, .texts = {}, .last_is_sum = false};
  const RowUnit in_hours = hours_unit(report.spent.gpu_hours);
  const RowUnit in_money = money_unit(report.spent.usd);
  const bool hardware = !report.hardware.empty();
  std::vector<std::string> hours = {hardware ? "in " + said(report.hardware, 40) + " GPU-hours" : "in GPU-hours"};
  std::vector<std::string> usd = {"in US dollars"};
  std::vector<std::string> tokens = {"tokens"};
  std::vector<std::string> steps = {"steps"};
  for (std::size_t i = 0; i < report.phases.size(); ++i) {
    const PhaseCost& phase = report.phases[i];
    const std::string at = fmt::format("/phases/{}/", i);
    table.head.push_back(said(phase.name, 60));
    hours.push_back(number(phase.gpu_hours, in_unit(phase.gpu_hours, in_hours), at + "gpu_hours"));
    usd.push_back(phase.usd > 0 ? number(phase.usd, "$" + in_unit(phase.usd, in_money), at + "usd") : "–");
    tokens.push_back(amount(static_cast<double>(phase.tokens), at + "tokens"));
    steps.push_back(count(phase.steps, at + "steps"));
  }
  table.head.push_back("total");
  hours.push_back(number(report.spent.gpu_hours, in_unit(report.spent.gpu_hours, in_hours), "/budget/spent_gpu_hours"));
  usd.push_back(report.spent.usd > 0
                    ? number(report.spent.usd, "$" + in_unit(report.spent.usd, in_money), "/budget/spent_usd")
                    : "–");
  tokens.push_back(amount(static_cast<double>(report.tokens), "/tokens"));
  steps.push_back(count(report.steps, "/steps"));
  table.rows = {std::move(hours)};
  if (report.spent.usd > 0) table.rows.push_back(std::move(usd));
  table.rows.push_back(std::move(tokens));
  table.rows.push_back(std::move(steps));
  return section("What each phase cost", html(table));
}

std::string suites(const Report& report) {
  if (report.suites.empty()) return {};
  Table table{.caption = "Answers to suites of questions",
              .head = {"after phase", "task", "metric", "answered", "value", "standard error"},
              .rows = {},
              .texts = {1, 2}};
  std::string cut;
  for (std::size_t i = 0; i < report.suites.size(); ++i) {
    const SuiteResult& result = report.suites[i];
    const std::string at = fmt::format("/suites/{}/", i);
    for (std::size_t k = 0; k < result.scores.size(); ++k) {
      const SuiteScore& score = result.scores[k];
      const std::string pointer = fmt::format("{}scores/{}/", at, k);
      const auto shown = [&](double value, const char* key) {
        return std::isfinite(value) && value >= 0 ? number(value, fmt::format("{:.4f}", value), pointer + key) : "–";
      };
      table.rows.push_back({said(result.phase, 60), said(score.task, 60), said(score.metric, 40),
                            count(score.requests, pointer + "requests"), shown(score.value, "value"),
                            shown(score.error, "error")});
    }
    if (result.requests == result.all_requests) continue;
    cut += fmt::format(
        "<p class=\"note\">{}: {} of {} questions, spread evenly: the budget, or evaluation.cap_share, had no room for "
        "more.</p>",
        said(result.phase, 60), count(result.requests, at + "requests"),
        count(result.all_requests, at + "all_requests"));
  }
  return section("Questions answered", html(table) + cut);
}

std::string time_line(const Report& report) {
  const double whole = report.spent.gpu_hours;
  if (report.attempts.empty() || whole <= 0) return {};
  std::vector<charts::Segment> segments;
  std::vector<double> cuts;
  double spent = 0;
  for (const AttemptHistory& attempt : report.attempts) {
    const double lost = attempt.charged[Category::lost] / 3600;
    const double hours = attempt.charged.total() / 3600;
    if (spent > 0) cuts.push_back(spent);
    segments.push_back(
        {hours - lost, "kept", fmt::format("attempt {}: {} GPU-hours kept", attempt.attempt, rounded(hours - lost))});
    segments.push_back({lost, "lost", fmt::format("attempt {}: {} GPU-hours lost", attempt.attempt, rounded(lost))});
    spent += hours;
  }
  Table table{.caption = "Attempts",
              .head = {"attempt", "on", "devices", "began after, h", "GPU-hours", "lost", "from step", "to step",
                       "saved", "end"},
              .rows = {},
              .texts = {1, 9}};
  const std::size_t all = report.attempts.size();
  const std::size_t first = all > kAttemptsShown ? all - kAttemptsShown : 0;
  const double begin = report.attempts.front().begin_unix_seconds;
  for (std::size_t i = first; i < all; ++i) {
    const AttemptHistory& attempt = report.attempts[i];
    const std::string at = fmt::format("/attempts/{}/", i);
    table.rows.push_back(
        {count(attempt.attempt, at + "attempt"), said(attempt.start.host, 40), count(attempt.start.ranks, at + "ranks"),
         amount(std::max(0.0, attempt.begin_unix_seconds - begin) / 3600, at + "begin_hours"),
         amount(attempt.charged.total() / 3600, at + "gpu_hours"),
         amount(attempt.charged[Category::lost] / 3600, at + "lost_gpu_hours"),
         count(attempt.start.from_step, at + "from_step"), count(attempt.last().step, at + "last_step"),
         count(static_cast<std::int64_t>(attempt.checkpoints.size()), at + "checkpoints"), said(attempt.reason, 40)});
  }
  std::string text = charts::bar(
      segments, whole,
      fmt::format("{} attempts, {} of {} GPU-hours lost", all, rounded(report.lost_gpu_hours()), rounded(whole)), cuts);
  text.replace(text.find("class=\"bar\""), 11, "class=\"bar line-bar\"");
  text +=
      "<p class=\"note\">GPU-hours from left to right; a gap is a restart, hatched is work that was lost and done "
      "again.</p>";
  if (first > 0) text += fmt::format("<p class=\"note\">Earlier attempts stand in report.json only.</p>");
  return section("Attempts, restarts and lost work", text + "<div class=\"long\">" + html(table) + "</div>", "wide");
}

std::string foretold(const Report& report) {
  if (report.planned_otherwise)
    return section("Predicted and actual", "<p>Its plan was made for another recipe: not compared.</p>");
  if (report.foretold.empty()) return {};
  Table table{.caption = "Predicted and actual", .head = {"", "predicted", "actual", "error"}, .rows = {}, .texts = {}};
  for (std::size_t i = 0; i < report.foretold.size(); ++i) {
    const Foretold& line = report.foretold[i];
    const std::string at = fmt::format("/foretold/{}/", i);
    table.rows.push_back({said(line.what, 80), amount(line.predicted, at + "predicted"),
                          amount(line.actual, at + "actual"), signed_share(line.error(), at + "error")});
  }
  return section("Predicted and actual", html(table) + "<p class=\"note\">Error = (predicted − actual) / actual.</p>");
}

std::string utilisation(const Report& report) {
  if (report.formats.empty()) return {};
  Table table{.caption = "Utilisation by number format",
              .head = {"format", "FLOPs", "of peak", "of achievable"},
              .rows = {},
              .texts = {}};
  for (const FormatUse& use : report.formats) {
    const std::string at = fmt::format("/utilisation/formats/{}/", name(use.format));
    table.rows.push_back({said(name(use.format)), amount(use.flops, at + "flops"),
                          use.of_peak > 0 ? share(use.of_peak, at + "of_peak") : "–",
                          use.of_achievable > 0 ? share(use.of_achievable, at + "of_achievable") : "–"});
  }
  std::string text =
      html(table) +
      "<p class=\"note\">FLOPs done in the format ÷ (GPU-seconds charged × FLOP/s of the device in that format). "
      "GPU-seconds are all of the bill, lost work and saving included.</p>";
  if (report.ideal_share > 0) {
    text += fmt::format("<p class=\"note\">Sum over formats, of peak: {}.</p>",
                        share(report.ideal_share, "/utilisation/ideal_share"));
  }
  const std::string& source = report.attempts.back().start.hardware.achievable_source;
  if (!source.empty()) text += "<p class=\"note\">Achievable: " + said(source) + "</p>";
  return section("Utilisation", text);
}

std::string pipeline(const Report& report) {
  if (!report.pipeline) return {};
  const PipelineUse& use = *report.pipeline;
  Table table{.caption = "Stages of the pipeline", .head = {"stage", "seconds a micro-batch"}, .rows = {}, .texts = {}};
  for (std::size_t stage = 0; stage < use.stage_seconds.size(); ++stage) {
    table.rows.push_back(
        {fmt::format("{}", stage), amount(use.stage_seconds[stage], fmt::format("/pipeline/stage_seconds/{}", stage))});
  }
  const std::string text = fmt::format(
      "<p>{} on {} ranks, {} micro-batches in a reduction group. Bubble {}; {} by the schedule's list at the times the "
      "stages took. The slowest stage takes {} more than the mean.</p>",
      said(use.schedule, 40), count(use.ranks, "/pipeline/ranks"), count(use.microbatches, "/pipeline/microbatches"),
      share(use.bubble, "/pipeline/bubble"), share(use.simulated_bubble, "/pipeline/simulated_bubble"),
      share(use.imbalance, "/pipeline/imbalance"));
  return section("Pipeline", text + folded("Seconds of each stage", html(table)));
}

std::string data(const Report& report) {
  if (!report.data) return {};
  const DataReading& read = *report.data;
  Table rates{
      .caption = "Read for batches, and copied near by", .head = {"from", "bytes", "seconds"}, .rows = {}, .texts = {}};
  const auto row = [&](const char* from, const char* key, std::int64_t bytes, double seconds) {
    const std::string at = fmt::format("/data/{}/", key);
    if (bytes > 0) rates.rows.push_back({from, count(bytes, at + "bytes"), amount(seconds, at + "seconds")});
  };
  row("where the shards lie", "storage", read.storage_bytes, read.storage_seconds);
  row("copies near by", "copies", read.copy_bytes, read.copy_seconds);
  row("copied there", "staged", read.staged_bytes, read.staged_seconds);
  Table late{
      .caption = "Shards that were waited for the longest", .head = {"shard", "seconds"}, .rows = {}, .texts = {}};
  for (std::size_t i = 0; i < read.late.size(); ++i) {
    late.rows.push_back(
        {said(read.late[i].path), amount(read.late[i].seconds, fmt::format("/data/late/{}/waited_seconds", i))});
  }
  std::string text = fmt::format("<p>Devices waited {} seconds in all for batches that were not ready.</p>",
                                 amount(read.wait_seconds, "/data/waited_seconds"));
  if (!rates.rows.empty()) text += html(rates);
  if (!late.rows.empty()) text += folded("What was waited for", html(late));
  return section("Training data", text);
}

std::string experts(const Report& report) {
  if (report.max_violations.empty()) return {};
  Table table{.caption = "Expert load of each mixture", .head = {"mixture", "MaxVio"}, .rows = {}, .texts = {}};
  for (std::size_t mixture = 0; mixture < report.max_violations.size(); ++mixture) {
    table.rows.push_back({fmt::format("{}", mixture),
                          share(report.max_violations[mixture], fmt::format("/expert_max_violations/{}", mixture))});
  }
  return section("Load of the fullest expert over the mean, less 1", folded("By mixture, last known", html(table)));
}

std::string comparison(const Report& report) {
  if (report.compared.empty()) return {};
  charts::LineChart chart{.title = "Training loss of the runs",
                          .summary = "",
                          .x_label = "GPU-hours",
                          .y_label = "nats per token",
                          .series = {},
                          .marks = {},
                          .top_label = ""};
  for (std::size_t i = 0; i < report.compared_curves.size(); ++i) {
    charts::Series series{.label = report.compared[i].run.substr(0, 40), .points = {}};
    for (const CurvePoint& point : report.compared_curves[i].points)
      series.points.push_back({point.gpu_hours, point.loss});
    chart.series.push_back(std::move(series));
  }
  return section("Beside other runs", summaries_table(report.compared, "/comparison/") + charts::line_chart(chart),
                 "wide");
}

std::string recipe(const Report& report) {
  if (report.recipe_text.empty()) return {};
  Table table{.caption = "Keys that are not at their default",
              .head = {"key", "value", "default"},
              .rows = {},
              .texts = {1, 2}};
  for (const ChangedKey& key : report.changed_keys) {
    table.rows.push_back(
        {"<code>" + said(key.key, 120) + "</code>", "<code>" + said(key.value, 300) + "</code>",
         key.otherwise.empty() ? "<span class=\"none\">none</span>" : "<code>" + said(key.otherwise, 300) + "</code>"});
  }
  std::string text = table.rows.empty() ? "<p>All keys are at their defaults, or it cannot be read by this version.</p>"
                                        : folded("Keys that differ from their defaults", html(table));
  text +=
      folded("The whole recipe, every key as it took effect", "<pre>" + said(report.recipe_text, 1 << 20) + "</pre>");
  const std::string hash = report.attempts.empty() ? "" : report.attempts.back().start.recipe_hash;
  return section("Recipe", "<p>Hash <code>" + said(hash, 80) + "</code></p>" + text, "wide");
}

std::string notes(const Report& report) {
  std::string lines;
  std::size_t shown = 0;
  for (auto attempt = report.attempts.rbegin(); attempt != report.attempts.rend() && shown < kNotesShown; ++attempt) {
    for (auto note = attempt->notes.rbegin(); note != attempt->notes.rend() && shown < kNotesShown; ++note, ++shown) {
      lines = "<li>" + said(*note) + "</li>\n" + lines;
    }
  }
  std::string text;
  if (report.clipped + report.skipped > 0) {
    text += fmt::format("<p>{} steps clipped, {} skipped, {} returns to a checkpoint.</p>",
                        count(report.clipped, "/clipped_steps"), count(report.skipped, "/skipped_steps"),
                        count(report.returns, "/returns_to_checkpoints"));
  }
  if (!report.untold.empty()) text += "<p>" + said(report.untold) + "</p>";
  if (report.damaged_lines > 0) {
    text += fmt::format("<p>{} damaged lines of the ledger could not be read.</p>",
                        count(report.damaged_lines, "/damaged_lines"));
  }
  if (!lines.empty()) text += folded("What was noted, the last lines", "<ul>" + lines + "</ul>");
  return section("What stood out", text);
}

std::string builds(const Report& report) {
  if (report.attempts.empty()) return {};
  const AttemptStart& start = report.attempts.back().start;
  std::string text = "<p>shoestring <code>" + said(start.build, 160) + "</code></p>";
  Table table{.caption = "Kernels chosen", .head = {"operation", "variant"}, .rows = {}, .texts = {1}};
  for (const auto& [op, variant] : start.variants) table.rows.push_back({said(op, 60), said(variant, 60)});
  if (!table.rows.empty()) text += folded("Which kernels ran", html(table));
  return section("Program", text);
}

}  // namespace shoestring::page
