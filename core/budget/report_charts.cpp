#include "core/budget/report_charts.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/budget/report_page.h"
#include "core/recipe/units.h"

namespace shoestring::charts {
namespace {

using page::escaped;

constexpr double kWidth = 460;
constexpr double kHeight = 230;
constexpr double kLeft = 46;
constexpr double kRight = 14;
constexpr double kBottom = 34;
constexpr int kLooks = 6;

struct Range {
  double low = std::numeric_limits<double>::infinity();
  double high = -std::numeric_limits<double>::infinity();
  void take(double value) {
    low = std::min(low, value);
    high = std::max(high, value);
  }
  double span() const { return high - low; }
};

/// Where values lie on the drawing.
struct Frame {
  Range x;
  Range y;
  double top = 12;

  double at_x(double value) const { return kLeft + (value - x.low) / x.span() * (kWidth - kLeft - kRight); }
  double at_y(double value) const { return kHeight - kBottom - (value - y.low) / y.span() * (kHeight - kBottom - top); }
};

Frame frame_of(const LineChart& chart) {
  Frame frame;
  for (const Series& series : chart.series) {
    for (const Point& point : series.points) {
      frame.x.take(point.x);
      frame.y.take(point.y);
    }
  }
  if (chart.from_zero) frame.y.take(0);
  frame.x.take(0);
  if (frame.x.span() <= 0) frame.x.high = frame.x.low + 1;
  if (frame.y.span() <= 0) frame.y.high = frame.y.low + (frame.y.low != 0 ? std::abs(frame.y.low) : 1);
  const double room = 0.06 * frame.y.span();
  frame.y.high += room;
  if (!chart.from_zero) frame.y.low -= room;
  if (chart.top_scale > 0) frame.top = 36;
  return frame;
}

std::string tick_text(double value, bool percent) {
  if (percent) return value == 0 ? "0%" : fmt::format("{:.3g}%", 100 * value);
  return rounded(value, 3);
}

std::string axes(const LineChart& chart, const Frame& frame) {
  std::string text;
  const double bottom = kHeight - kBottom;
  for (const double tick : round_ticks(frame.y.low, frame.y.high, 4)) {
    const double y = frame.at_y(tick);
    text +=
        fmt::format(R"(<line class="grid" x1="{0}" x2="{1}" y1="{2:.1f}" y2="{2:.1f}"/>)", kLeft, kWidth - kRight, y);
    text += fmt::format(R"(<text class="tick" x="{}" y="{:.1f}" text-anchor="end">{}</text>)", kLeft - 6, y + 3.5,
                        tick_text(tick, chart.percent));
  }
  for (const double tick : round_ticks(frame.x.low, frame.x.high, 5)) {
    text += fmt::format(R"(<text class="tick" x="{:.1f}" y="{}" text-anchor="middle">{}</text>)", frame.at_x(tick),
                        bottom + 14, tick_text(tick, false));
  }
  text += fmt::format(R"(<line class="axis" x1="{0}" x2="{1}" y1="{2}" y2="{2}"/>)", kLeft, kWidth - kRight, bottom);
  text += fmt::format(R"(<text class="unit" x="{}" y="{}" text-anchor="end">{}</text>)", kWidth - kRight, kHeight - 4,
                      escaped(chart.x_label));
  if (chart.top_scale <= 0) return text;
  for (const double tick : round_ticks(frame.x.low * chart.top_scale, frame.x.high * chart.top_scale, 4)) {
    const double x = frame.at_x(tick / chart.top_scale);
    text +=
        fmt::format(R"(<line class="axis" x1="{0:.1f}" x2="{0:.1f}" y1="{1}" y2="{2}"/>)", x, frame.top - 4, frame.top);
    text += fmt::format(R"(<text class="tick" x="{:.1f}" y="{}" text-anchor="middle">{}</text>)", x, frame.top - 8,
                        tick_text(tick, false));
  }
  text += fmt::format(R"(<line class="axis" x1="{0}" x2="{1}" y1="{2}" y2="{2}"/>)", kLeft, kWidth - kRight, frame.top);
  return text + fmt::format(R"(<text class="unit" x="{}" y="10" text-anchor="end">{}</text>)", kWidth - kRight,
                            escaped(chart.top_label));
}

std::string marks(const LineChart& chart, const Frame& frame) {
  std::string text;
  for (const double mark : chart.marks) {
    if (mark <= frame.x.low || mark > frame.x.high) continue;
    text += fmt::format(R"(<line class="mark" x1="{0:.1f}" x2="{0:.1f}" y1="{1}" y2="{2}"/>)", frame.at_x(mark),
                        frame.top, kHeight - kBottom);
  }
  return text;
}

std::string curve(const Series& series, std::size_t index, const Frame& frame, bool area) {
  std::string path;
  for (const Point& point : series.points) {
    path += fmt::format("{}{:.1f} {:.1f}", path.empty() ? "M" : "L", frame.at_x(point.x), frame.at_y(point.y));
  }
  const std::size_t look = index % kLooks;
  std::string text;
  if (area) {
    text += fmt::format(R"(<path class="area" d="{}L{:.1f} {:.1f}L{:.1f} {:.1f}Z"/>)", path,
                        frame.at_x(series.points.back().x), frame.at_y(frame.y.low),
                        frame.at_x(series.points.front().x), frame.at_y(frame.y.low));
  }
  text += fmt::format(R"(<path class="line s{}" d="{}"/>)", look, path);
  if (!series.dots) return text;
  for (const Point& point : series.points) {
    text += fmt::format(R"(<circle class="dot s{}" cx="{:.1f}" cy="{:.1f}" r="3.5"/>)", look, frame.at_x(point.x),
                        frame.at_y(point.y));
  }
  return text;
}

/// Which line is which: a piece of each, and its name, in a row above the drawing's lower edge.
std::string legend(const LineChart& chart) {
  std::string text;
  for (std::size_t i = 0; i < chart.series.size(); ++i) {
    const Series& series = chart.series[i];
    if (series.label.empty() || series.points.empty()) continue;
    text += fmt::format(
        R"(<li><svg class="key" viewBox="0 0 24 8" aria-hidden="true"><path class="line s{0}" d="M0 4L24 4"/>{1}</svg>{2}</li>)",
        i % kLooks, series.dots ? fmt::format(R"(<circle class="dot s{}" cx="12" cy="4" r="3"/>)", i % kLooks) : "",
        page::said(series.label));
  }
  if (!chart.marks.empty()) {
    text +=
        R"(<li><svg class="key" viewBox="0 0 24 8" aria-hidden="true"><path class="mark" d="M12 0L12 8"/></svg>restart</li>)";
  }
  return text.empty() ? text : "<ul class=\"legend\">" + text + "</ul>";
}

}  // namespace

std::vector<double> round_ticks(double low, double high, int count) {
  std::vector<double> ticks;
  if (!(high > low) || !std::isfinite(high - low)) return ticks;
  const double rough = (high - low) / count;
  const double power = std::pow(10, std::floor(std::log10(rough)));
  double step = 10 * power;
  for (const double factor : {1.0, 2.0, 5.0}) {
    if (factor * power >= rough) {
      step = factor * power;
      break;
    }
  }
  for (double k = std::ceil(low / step); k * step <= high + 1e-9 * step; ++k) ticks.push_back(k * step);
  return ticks;
}

std::string line_chart(const LineChart& chart) {
  const bool drawn =
      std::any_of(chart.series.begin(), chart.series.end(), [](const Series& s) { return !s.points.empty(); });
  if (!drawn) return {};
  const Frame frame = frame_of(chart);
  std::string text = fmt::format(R"(<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">)"
                                 "\n",
                                 kWidth, kHeight, escaped(chart.title + ". " + chart.summary));
  text +=
      fmt::format(R"(<text class="unit" x="0" y="{}">{}</text>)", chart.top_scale > 0 ? 10 : 8, escaped(chart.y_label));
  text += axes(chart, frame) + marks(chart, frame);
  for (std::size_t i = 0; i < chart.series.size(); ++i) {
    const Series& series = chart.series[i];
    if (!series.points.empty()) text += curve(series, i, frame, chart.area && i == 0) + "\n";
  }
  return text + "</svg>\n" + legend(chart);
}

std::string bar(const std::vector<Segment>& segments, double whole, const std::string& summary,
                const std::vector<double>& ticks) {
  constexpr double kBar = 1000;
  std::string text =
      fmt::format(R"(<svg class="bar" viewBox="0 0 {} 10" preserveAspectRatio="none" role="img" aria-label="{}">)",
                  kBar, escaped(summary));
  text += fmt::format(R"(<rect class="rest" width="{}" height="10"/>)", kBar);
  double from = 0;
  const auto place = [&](double length) { return whole > 0 ? std::clamp(length / whole, 0.0, 1.0) * kBar : 0; };
  for (const Segment& segment : segments) {
    const double begin = place(from);
    from += segment.length;
    if (segment.length <= 0 || segment.look == "rest") continue;
    text += fmt::format(R"(<rect class="{}" x="{:.2f}" width="{:.2f}" height="10"><title>{}</title></rect>)",
                        segment.look, begin, place(from) - begin, escaped(segment.what));
  }
  for (const double tick : ticks) text += fmt::format(R"(<path class="cut" d="M{0:.2f} 0L{0:.2f} 10"/>)", place(tick));
  return text + "</svg>";
}

std::string patterns() {
  return "<svg class=\"patterns\" aria-hidden=\"true\"><defs><pattern id=\"hatch\" width=\"6\" height=\"6\" "
         "patternUnits=\"userSpaceOnUse\" patternTransform=\"rotate(45)\"><rect class=\"hatch-ground\" width=\"6\" "
         "height=\"6\"/><rect class=\"hatch-line\" width=\"3\" height=\"6\"/></pattern></defs></svg>\n";
}

}  // namespace shoestring::charts
