// What a run's page draws over time: each chart with its numbers in a table behind it.
#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <functional>

#include "core/budget/report_charts.h"
#include "core/budget/report_page.h"
#include "core/budget/report_sections.h"
#include "core/recipe/units.h"

namespace shoestring::page {
namespace {

using charts::LineChart;
using charts::Series;

/// Where attempts after the first begin, in GPU-hours.
std::vector<double> restarts(const Report& report) {
  std::vector<double> places;
  double spent = 0;
  for (const AttemptHistory& attempt : report.attempts) {
    if (spent > 0) places.push_back(spent);
    spent += attempt.charged.total() / 3600;
  }
  return places;
}

Series series_of(const Report& report, const std::string& label, const std::function<double(const CurvePoint&)>& y) {
  Series series{.label = label, .points = {}};
  for (const CurvePoint& point : report.curve.points) series.points.push_back({point.gpu_hours, y(point)});
  return series;
}

/// A table over the points of the curve: GPU-hours, step, and what the columns say of point `i`.
struct Column {
  std::string head;
  std::function<std::string(const CurvePoint&, const std::string& pointer)> cell;
};

std::string curve_table(const Report& report, const std::string& caption, const std::vector<Column>& columns) {
  Table table{.caption = caption, .head = {"GPU-hours", "step"}, .rows = {}, .texts = {}};
  for (const Column& column : columns) table.head.push_back(column.head);
  for (std::size_t i = 0; i < report.curve.points.size(); ++i) {
    const CurvePoint& point = report.curve.points[i];
    const std::string at = fmt::format("/curve/points/{}/", i);
    std::vector<std::string> row = {amount(point.gpu_hours, at + "gpu_hours"), count(point.step, at + "step")};
    for (const Column& column : columns) row.push_back(column.cell(point, at));
    table.rows.push_back(std::move(row));
  }
  return folded("The numbers", html(table));
}

LineChart over_gpu_hours(const Report& report, const char* title, const char* y_label) {
  LineChart chart{.title = title,
                  .summary = "",
                  .x_label = "GPU-hours",
                  .y_label = y_label,
                  .series = {},
                  .marks = restarts(report),
                  .top_label = ""};
  return chart;
}

/// The unit in which a span of hours reads best.
struct TimeUnit {
  const char* name;
  double per_hour;
};
TimeUnit unit_of(double hours) {
  if (hours < 0.05) return {"seconds", 3600};
  if (hours < 3) return {"minutes", 60};
  if (hours < 72) return {"hours", 1};
  return {"days", 1.0 / 24};
}

std::string loss_table(const Report& report) {
  std::vector<Column> columns = {
      {"$", [](const CurvePoint& p, const std::string& at) { return money(p.usd, at + "usd"); }},
      {"loss", [](const CurvePoint& p, const std::string& at) {
         return number(p.loss, fmt::format("{:.4f}", p.loss), at + "loss");
       }}};
  if (!report.price) columns.erase(columns.begin());
  return curve_table(report, "Training loss over GPU-hours", columns);
}

}  // namespace

std::string burn_down(const Report& report) {
  if (report.burn_down.size() < 2 || report.spent.gpu_hours <= 0) return {};
  const bool capped = report.cap_gpu_hours > 0;
  const TimeUnit unit = unit_of(report.burn_down.back().hours);
  LineChart chart{
      .title = capped ? "GPU-hours left of the cap" : "GPU-hours spent",
      .summary = fmt::format("From {} to {} in {} {}.", rounded(capped ? report.cap_gpu_hours : 0),
                             rounded(capped ? report.cap_gpu_hours - report.spent.gpu_hours : report.spent.gpu_hours),
                             rounded(report.burn_down.back().hours * unit.per_hour), unit.name),
      .x_label = std::string(unit.name) + " since the first start",
      .y_label = capped ? "GPU-hours left" : "GPU-hours",
      .series = {Series{.label = "", .points = {}}},
      .marks = {},
      .top_label = "",
      .from_zero = true,
      .area = true};
  Table table{.caption = chart.title, .head = {"hours", "attempt", "spent"}, .rows = {}, .texts = {}};
  if (capped) table.head.push_back("left");
  int attempt = report.burn_down.front().attempt;
  for (std::size_t i = 0; i < report.burn_down.size(); ++i) {
    const SpentAt& at = report.burn_down[i];
    const double y = capped ? std::max(0.0, report.cap_gpu_hours - at.gpu_hours) : at.gpu_hours;
    chart.series[0].points.push_back({at.hours * unit.per_hour, y});
    if (at.attempt != attempt) chart.marks.push_back(at.hours * unit.per_hour);
    attempt = at.attempt;
    const std::string pointer = fmt::format("/burn_down/{}/", i);
    table.rows.push_back({amount(at.hours, pointer + "hours"), count(at.attempt, pointer + "attempt"),
                          amount(at.gpu_hours, pointer + "spent_gpu_hours")});
    if (capped) table.rows.back().push_back(amount(y, pointer + "left_gpu_hours"));
  }
  return section("How the budget went down", charts::line_chart(chart) + folded("The numbers", html(table)));
}

std::string losses(const Report& report) {
  LineChart chart = over_gpu_hours(report, "Loss against GPU-hours and money", "nats per token");
  if (report.price && !report.other_prices) {
    chart.top_scale = report.price->usd_per_gpu_hour;
    chart.top_label = "US dollars";
  }
  if (!report.curve.points.empty()) {
    chart.series.push_back(series_of(report, "training", [](const CurvePoint& p) { return p.loss; }));
  }
  Series held_out{.label = "held out", .points = {}, .dots = true};
  Table table{.caption = "Held-out loss",
              .head = {"GPU-hours", "step", "nats per token", "bits per byte"},
              .rows = {},
              .texts = {}};
  for (std::size_t i = 0; i < report.evaluations.size(); ++i) {
    const EvaluatedAt& at = report.evaluations[i];
    const std::string pointer = fmt::format("/evaluations/{}/", i);
    if (std::isfinite(at.result.loss)) held_out.points.push_back({at.gpu_hours, at.result.loss});
    table.rows.push_back({amount(at.gpu_hours, pointer + "gpu_hours"), count(at.result.step, pointer + "step"),
                          number(at.result.loss, fmt::format("{:.4f}", at.result.loss), pointer + "loss"),
                          at.result.bits_per_byte > 0
                              ? number(at.result.bits_per_byte, fmt::format("{:.4f}", at.result.bits_per_byte),
                                       pointer + "bits_per_byte")
                              : "–"});
  }
  if (!held_out.points.empty()) {
    chart.summary = fmt::format("Held out {} at the end.", loss_words(report.evaluations.back().result.loss));
    chart.series.push_back(std::move(held_out));
  }
  const std::string drawn = charts::line_chart(chart);
  if (drawn.empty()) return {};
  std::string behind = loss_table(report);
  if (!table.rows.empty()) behind += folded("Held out", html(table));
  if (report.curve.sampled)
    behind += "<p class=\"note\">The run is long: steps at evenly spread places stand for all.</p>";
  return section("What it learned for that", drawn + behind);
}

std::string learning_rate(const Report& report) {
  LineChart chart = over_gpu_hours(report, "Learning rate", "learning rate");
  chart.from_zero = true;
  if (report.curve.points.size() > 1) {
    chart.series.push_back(series_of(report, "", [](const CurvePoint& p) { return p.learning_rate; }));
    chart.summary = fmt::format("{:.3g} at the end.", report.curve.points.back().learning_rate);
  }
  const std::string drawn = charts::line_chart(chart);
  if (drawn.empty()) return {};
  return section("Learning rate",
                 drawn + curve_table(report, "Learning rate", {{"rate", [](const CurvePoint& p, const std::string& at) {
                                                                  return number(p.learning_rate,
                                                                                fmt::format("{:.4g}", p.learning_rate),
                                                                                at + "learning_rate");
                                                                }}}));
}

std::string speed(const Report& report) {
  LineChart chart = over_gpu_hours(report, "Speed", "tokens per second");
  chart.from_zero = true;
  if (report.curve.points.size() > 1) {
    chart.series.push_back(series_of(report, "", [](const CurvePoint& p) { return p.tokens_per_second; }));
    chart.summary =
        fmt::format("{} tokens per second at the end.", rounded(report.curve.points.back().tokens_per_second));
  }
  const std::string drawn = charts::line_chart(chart);
  if (drawn.empty()) return {};
  return section("Speed",
                 drawn + curve_table(report, "Speed", {{"tokens/s", [](const CurvePoint& p, const std::string& at) {
                                                          return amount(p.tokens_per_second, at + "tokens_per_second");
                                                        }}}));
}

std::string quantisation(const Report& report) {
  LineChart chart = over_gpu_hours(report, "Saturated and underflowed values", "share of the values quantised");
  chart.percent = chart.from_zero = true;
  if (report.curve.points.size() < 2) return {};
  std::vector<Column> columns;
  for (const auto& [name, unused] : report.curve.points.back().shares) {
    const auto share_of = [name = name](const CurvePoint& p) {
      const auto found = p.shares.find(name);
      return found == p.shares.end() ? 0.0 : found->second;
    };
    std::string label = name;
    std::replace(label.begin(), label.end(), '.', ' ');
    columns.push_back({said(label, 60), [name = name, share_of](const CurvePoint& p, const std::string& at) {
                         return p.shares.contains(name) ? number(share_of(p), fmt::format("{:.4f}%", 100 * share_of(p)),
                                                                 at + "quantisation/" + pointer_key(name))
                                                        : std::string("–");
                       }});
    const bool seen = std::any_of(report.curve.points.begin(), report.curve.points.end(),
                                  [&](const CurvePoint& p) { return share_of(p) > 0; });
    if (seen) chart.series.push_back(series_of(report, label, share_of));
  }
  if (columns.empty()) return {};
  chart.summary = "By class of tensor.";
  std::string drawn = charts::line_chart(chart);
  if (drawn.empty()) drawn = "<p>No value was saturated, and none underflowed.</p>";
  return section("Saturation and underflow", drawn + curve_table(report, "Shares of values", columns));
}

std::string expert_balance(const Report& report) {
  const auto& points = report.curve.points;
  const bool experts =
      std::any_of(points.begin(), points.end(), [](const CurvePoint& p) { return p.expert_overload != 0; });
  if (!experts || points.size() < 2) return {};
  LineChart chart = over_gpu_hours(report, "Expert balance", "MaxVio: largest load over the mean, less 1");
  chart.from_zero = true;
  chart.series.push_back(series_of(report, "", [](const CurvePoint& p) { return p.expert_overload; }));
  chart.summary = fmt::format("{:.3g} at the end; 0 is an even load.", points.back().expert_overload);
  return section("Expert balance",
                 charts::line_chart(chart) +
                     "<p class=\"note\">Of the worst layer; zero where every expert has the same load.</p>" +
                     curve_table(report, "Expert overload",
                                 {{"overload", [](const CurvePoint& p, const std::string& at) {
                                     return p.expert_overload > 0
                                                ? number(p.expert_overload, fmt::format("{:.3f}", p.expert_overload),
                                                         at + "expert_overload")
                                                : std::string("–");
                                   }}}));
}

}  // namespace shoestring::page
