#include "core/training/work_progress.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <string_view>

namespace shoestring {
namespace {

constexpr double kFirstSeconds = 1;

double steady_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

std::string bytes_text(double bytes) {
  for (const std::string_view unit : {"B", "kB", "MB", "GB"}) {
    if (bytes < 999.5) return fmt::format("{:.{}f} {}", bytes, bytes < 9.95 && unit != "B" ? 1 : 0, unit);
    bytes /= 1000;
  }
  return fmt::format("{:.2f} TB", bytes);
}

std::string amount_text(double amount, const std::string& counted) {
  return counted.empty() ? bytes_text(amount)
                         : fmt::format("{:.{}f}", amount, amount < 9.95 && amount != std::floor(amount) ? 1 : 0);
}

std::string time_text(double seconds) {
  const auto whole = static_cast<std::int64_t>(std::ceil(seconds));
  if (whole < 60) return fmt::format("{} s", whole);
  if (whole < 3600) return fmt::format("{} min {:02} s", whole / 60, whole % 60);
  return fmt::format("{} h {:02} min", whole / 3600, whole / 60 % 60);
}

}  // namespace

std::string to_string(const Progress& progress, std::int64_t bytes_since, double seconds) {
  if (progress.done_bytes == 0 && progress.all_bytes == 0) return progress.doing + ": " + progress.more;
  std::string text = progress.doing + ": ";
  const auto done = static_cast<double>(progress.done_bytes);
  const auto all = static_cast<double>(std::max(progress.all_bytes, progress.done_bytes));
  if (progress.all_bytes > 0) text += fmt::format("{:.0f} %, ", std::floor(100 * done / all));
  text += amount_text(done, progress.counted);
  if (progress.all_bytes > 0) text += " of " + amount_text(all, progress.counted);
  if (!progress.counted.empty()) text += " " + progress.counted;
  const double rate = seconds > 0 ? static_cast<double>(bytes_since) / seconds : 0;
  if (rate > 0) text += fmt::format(", {}/s", amount_text(rate, progress.counted));
  if (rate > 0 && all > done) text += fmt::format(", {} left", time_text((all - done) / rate));
  if (!progress.more.empty()) text += ", " + progress.more;
  return text;
}

std::string WorkPace::text(const Progress& progress, double monotonic_seconds) {
  if (progress.doing != doing_) {
    doing_ = progress.doing;
    began_ = monotonic_seconds;
    first_bytes_ = progress.done_bytes;
  }
  const double seconds = monotonic_seconds - began_;
  return seconds < kFirstSeconds ? "" : to_string(progress, progress.done_bytes - first_bytes_, seconds);
}

void WorkProgress::show(const Progress& progress) {
  const double now = steady_seconds();
  const std::string text = pace_.text(progress, now);
  if (!text.empty()) line_.update(text, now);
}

}  // namespace shoestring
