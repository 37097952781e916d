#include "core/budget/report_plan.h"

#include <fmt/core.h>

#include <algorithm>

#include "core/budget/planner.h"
#include "kernels/base/check.h"
#include "kernels/base/file.h"
#include "kernels/base/json.h"

namespace shoestring {
namespace {

constexpr std::int64_t kMostBytes = 4 << 20;
constexpr std::size_t kMostPhases = 64;

void add(Report& report, std::string what, const Json& plan, std::string_view key, double actual) {
  const Json* found = plan.find(key);
  if (found == nullptr || !found->is_number() || found->number() <= 0 || actual <= 0) return;
  report.foretold.push_back({std::move(what), found->number(), actual});
}

// What the hours were to go to, and went to.
void add_categories(Report& report, const Json& plan) {
  const Json* categories = plan.find("categories");
  if (categories == nullptr || !categories->is_object()) return;
  constexpr double kSecondsPerHour = 3600;
  for (int i = 0; i < kCategories; ++i) {
    const auto category = static_cast<Category>(i);
    const double actual = report.charged[category] / kSecondsPerHour;
    add(report, fmt::format("GPU-hours: {}", name(category)), *categories, name(category), actual);
  }
}

void add_phases(Report& report, const Json& plan) {
  const Json* phases = plan.find("phases");
  if (phases == nullptr || !phases->is_array() || phases->size() < 2) return;
  for (std::size_t i = 0; i < std::min(phases->size(), kMostPhases); ++i) {
    const Json& phase = phases->items()[i];
    const std::string name = phase.text_or("name", "").substr(0, 256);
    const auto cost = std::find_if(report.phases.begin(), report.phases.end(),
                                   [&](const PhaseCost& known) { return known.name == name; });
    if (cost == report.phases.end()) continue;
    add(report, name + ": GPU-hours", phase, "gpu_hours", cost->gpu_hours);
    add(report, name + ": tokens", phase, "tokens", static_cast<double>(cost->tokens));
  }
}

}  // namespace

void compare_with_plan(const std::filesystem::path& run_directory, Report& report) {
  const std::filesystem::path file = run_directory / kPlanFile;
  try {
    if (report.attempts.empty() || type_of(file) == std::filesystem::file_type::not_found) return;
    const Json plan = parse_json(read_file(file, kMostBytes), file.string());
    const std::string recipe = plan.text_or("recipe", "");
    report.planned_otherwise = !recipe.empty() && recipe != latest_of(report.attempts).start.recipe_hash;
    if (report.planned_otherwise) return;
    add(report, "GPU-hours", plan, "gpu_hours", report.spent.gpu_hours);
    add(report, "money, $", plan, "usd", report.spent.usd);
    add(report, "tokens", plan, "tokens", static_cast<double>(report.tokens));
    add(report, "steps", plan, "steps", static_cast<double>(report.steps));
    add_categories(report, plan);
    add_phases(report, plan);
  } catch (const Error&) {
    report.foretold.clear();
  }
}

}  // namespace shoestring
