#include "core/budget/run_curve.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <string_view>

#include "kernels/base/check.h"
#include "kernels/base/file.h"
#include "kernels/base/json.h"

namespace shoestring {
namespace {

constexpr std::int64_t kReadWhole = 8 << 20;
constexpr std::int64_t kPlaces = 4096;          // looked at in a longer file
constexpr std::int64_t kLongestLine = 1 << 14;  // ours are of some 800 bytes
constexpr JsonLimits kLimits{.bytes = kLongestLine, .depth = 8};
constexpr std::size_t kMostShares = 16;

/// One step; nothing for an evaluation or what cannot be read.
std::optional<CurvePoint> point_of(std::string_view line) {
  if (line.find("\"timing\"") == std::string_view::npos) return std::nullopt;  // sooner than a parser finds out
  try {
    const Json json = parse_json(line, "a line of metrics.jsonl", ExitCode::bad_data, kLimits);
    if (json.find("timing") == nullptr || !json.at("loss").is_number()) return std::nullopt;
    const Json& timing = json.at("timing");
    CurvePoint point{.step = json.at("step").count(),
                     .tokens = json.at("tokens").count(),
                     .gpu_hours = timing.at("gpu_hours").number(),
                     .usd = timing.number_or("usd", 0),
                     .loss = json.at("loss").number(),
                     .learning_rate = json.number_or("learning_rate", 0),
                     .gradient_norm = json.at("gradient_norm").is_number() ? json.at("gradient_norm").number() : 0,
                     .tokens_per_second = timing.number_or("tokens_per_second", 0),
                     .expert_overload = json.number_or("expert_overload", 0),
                     .shares = {}};
    if (const Json* shares = json.find("quantisation"); shares != nullptr && shares->is_object()) {
      for (const Json::Member& share : shares->members()) {
        if (point.shares.size() < kMostShares && share.value.is_number()) {
          point.shares[share.key.substr(0, 64)] = share.value.number();
        }
      }
    }
    return point;
  } catch (const Error&) {
    return std::nullopt;
  }
}

std::vector<CurvePoint> whole_file(const std::filesystem::path& path) {
  std::vector<CurvePoint> points;
  const std::string text = read_file(path, kReadWhole);
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = std::min(text.find('\n', begin), text.size());  // what is being written is no whole value
    if (auto point = point_of(std::string_view(text).substr(begin, end - begin))) points.push_back(std::move(*point));
    begin = end + 1;
  }
  return points;
}

/// The first whole line behind each of the places.
std::vector<CurvePoint> sampled_file(const FileHandle& file, const std::filesystem::path& path, std::int64_t bytes) {
  std::vector<CurvePoint> points;
  std::string window(2 * kLongestLine, '\0');
  const std::int64_t span = bytes - static_cast<std::int64_t>(window.size());
  for (std::int64_t place = 0; place < kPlaces; ++place) {
    const std::int64_t offset = span / (kPlaces - 1) * place;
    read_at(file, path, offset, window.data(), static_cast<std::int64_t>(window.size()));
    const std::size_t begin = offset == 0 ? 0 : window.find('\n') + 1;
    const std::size_t end = window.find('\n', begin);
    if ((offset > 0 && begin == 0) || end == std::string::npos) continue;
    auto point = point_of(std::string_view(window).substr(begin, end - begin));
    if (point && (points.empty() || point->step > points.back().step)) points.push_back(std::move(*point));
  }
  return points;
}

/// The points of [begin, end) as one.
CurvePoint merged(const std::vector<CurvePoint>& points, std::size_t begin, std::size_t end) {
  CurvePoint sum = points[end - 1];
  const auto mean = [&](double CurvePoint::*what) {
    double total = 0;
    for (std::size_t i = begin; i < end; ++i) total += points[i].*what;
    return total / static_cast<double>(end - begin);
  };
  for (const auto what :
       {&CurvePoint::loss, &CurvePoint::gradient_norm, &CurvePoint::tokens_per_second, &CurvePoint::expert_overload}) {
    sum.*what = mean(what);
  }
  for (auto& [name, value] : sum.shares) {
    double total = 0;
    std::size_t known = 0;
    for (std::size_t i = begin; i < end; ++i) {
      const auto found = points[i].shares.find(name);
      if (found == points[i].shares.end()) continue;
      total += found->second;
      ++known;
    }
    value = total / static_cast<double>(known);
  }
  return sum;
}

}  // namespace

Curve read_curve(const std::filesystem::path& metrics_file, std::size_t most) {
  Curve curve;
  std::vector<CurvePoint> points;
  try {
    if (type_of(metrics_file) != std::filesystem::file_type::regular) return curve;
    const FileHandle file = open_for_reading(metrics_file);
    const std::int64_t bytes = file_bytes(file, metrics_file);
    curve.sampled = bytes > kReadWhole;
    points = curve.sampled ? sampled_file(file, metrics_file, bytes) : whole_file(metrics_file);
  } catch (const Error&) {
    return curve;
  }
  const std::size_t count = std::min(most, points.size());
  for (std::size_t i = 0; i < count; ++i) {
    curve.points.push_back(merged(points, i * points.size() / count, (i + 1) * points.size() / count));
  }
  return curve;
}

}  // namespace shoestring
