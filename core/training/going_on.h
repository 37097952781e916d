// What an attempt that goes on finds otherwise than the ones before it left it. Nothing of it ends the run, and none of
// it is passed over in silence.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "core/budget/ledger_history.h"
#include "core/recipe/recipe.h"

namespace shoestring {

/// Ops that earlier attempts computed by other rows than those of `now` (op, variant): on another processor, say, or
/// with other pins. Empty: none.
std::string other_rows_text(const LedgerHistory& history, const std::map<std::string, std::string>& now);

/// Keys that --allow-recipe-change let change (resume_differences), with both values. Empty: none.
std::string recipe_change_text(const Recipe& before, const Recipe& now);

/// Lines that metrics.jsonl lacks of the first `steps` steps. Empty: none.
std::string missing_metrics_text(std::int64_t missing, std::int64_t steps);

}  // namespace shoestring
