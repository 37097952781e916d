// Charts as inline SVG: plain lines and bars, no script, no library. What a colour says, a dash, a hatch or a label
// says too. All texts are escaped here. Shapes take their looks from the page's style sheet by class
// (report_style.cpp).
#pragma once

#include <string>
#include <vector>

namespace shoestring::charts {

struct Point {
  double x = 0;
  double y = 0;
};

struct Series {
  std::string label;  ///< stands at its end; empty: none
  std::vector<Point> points;
  bool dots = false;  ///< marks besides the line
};

struct LineChart {
  std::string title;
  std::string summary;  ///< one sentence for who cannot see it
  std::string x_label;
  std::string y_label;
  std::vector<Series> series;
  std::vector<double> marks;  ///< x of vertical lines: restarts
  double top_scale = 0;       ///< > 0: a second axis on top, x times this
  std::string top_label;
  bool from_zero = false;
  bool area = false;     ///< the space under the first series is filled
  bool percent = false;  ///< y is a share
};

/// Nothing to draw: empty.
std::string line_chart(const LineChart& chart);

struct Segment {
  double length = 0;
  std::string look;  ///< a class of the style sheet: "kept", "spare", "lost", "rest"
  std::string what;  ///< its name, for who cannot see it
};

/// One bar as wide as its place, divided in proportion to `whole`; `ticks` are lines at such places.
std::string bar(const std::vector<Segment>& segments, double whole, const std::string& summary,
                const std::vector<double>& ticks = {});

/// The hatch that "lost" is filled with; once in a page, before the charts.
std::string patterns();

/// About `count` round numbers within [low, high].
std::vector<double> round_ticks(double low, double high, int count);

}  // namespace shoestring::charts
