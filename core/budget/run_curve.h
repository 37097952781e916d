// The curves of a run, from RUN/metrics.jsonl: what a page can draw, whatever the length of the run.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace shoestring {

inline constexpr std::string_view kMetricsFile = "metrics.jsonl";

/// Steps since the point before, taken together. Means are over those steps; the rest is as of the last of them.
struct CurvePoint {
  std::int64_t step = 0;
  std::int64_t tokens = 0;
  double gpu_hours = 0;  ///< spent by the run, all attempts
  double usd = 0;        ///< 0: no price
  double loss = 0;       ///< mean, nats per token
  double learning_rate = 0;
  double gradient_norm = 0;              ///< mean
  double tokens_per_second = 0;          ///< mean
  double expert_overload = 0;            ///< mean; 0: no experts
  std::map<std::string, double> shares;  ///< means: "saturated.weight", "underflowed.gradient" ...
};

struct Curve {
  std::vector<CurvePoint> points;
  /// The file is too long to be read in the time a page may take: lines at evenly spread places stand for all.
  bool sampled = false;
};

/// At most `most` points. An absent file, and lines that are damaged, cut off or of a later format, give fewer points:
/// the curves are an ornament of the report, the bill rests on the ledger.
Curve read_curve(const std::filesystem::path& metrics_file, std::size_t most = 120);

}  // namespace shoestring
