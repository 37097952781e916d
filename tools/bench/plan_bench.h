// `shoestring bench plan FILE.csv`: the planner held against published throughput.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "core/budget/published_rows.h"
#include "kernels/base/json.h"

namespace shoestring {

/// One job: step time foretold over measured, less one.
struct PlanRow {
  PublishedRow row;
  double seconds = 0;         ///< of a step, foretold
  double error = 0;           ///< +0.05: foretold 5% too slow
  double constant_error = 0;  ///< of one utilisation for each device and format: the median of all its rows here
};

struct ErrorSummary {
  double median = 0;  ///< of absolute errors
  double p90 = 0;
  double mean = 0;
};
ErrorSummary summary_of(std::vector<double> errors);

/// Foretells every row; nothing is fitted to any. `recipe_folder`: where hardware files are looked for.
std::vector<PlanRow> foretell(const std::vector<PublishedRow>& rows, const std::filesystem::path& recipe_folder);

void print_plan_rows(const std::vector<PlanRow>& rows);
Json json_of(const std::vector<PlanRow>& rows);

}  // namespace shoestring
