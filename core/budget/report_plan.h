// What plan.json foretold, beside what the ledger says came of it. Not for others than the report.
#pragma once

#include <filesystem>

#include "core/budget/report.h"

namespace shoestring {

/// Fills `foretold` (in all, then phase by phase) and `planned_otherwise`. Nothing where no plan was stored, or none
/// that can be read: a report without its comparison is better than none.
void compare_with_plan(const std::filesystem::path& run_directory, Report& report);

}  // namespace shoestring
