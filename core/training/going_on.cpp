#include "core/training/going_on.h"

#include <fmt/core.h>

#include "core/recipe/explain.h"

namespace shoestring {

std::string other_rows_text(const LedgerHistory& history, const std::map<std::string, std::string>& now) {
  std::map<std::string, std::string> before;
  for (const AttemptHistory& attempt : history.attempts) {
    for (const auto& [op, variant] : attempt.start.variants) before.insert_or_assign(op, variant);
  }
  std::string list;
  for (const auto& [op, variant] : now) {
    const auto found = before.find(op);
    if (found == before.end() || found->second == variant) continue;
    list += fmt::format("{}{} is {} and was {}", list.empty() ? "" : ", ", op, variant, found->second);
  }
  if (list.empty()) return {};
  return fmt::format(
      "other rows than in the attempts before ({}): the steps from here on may not be to the bit those of a run that "
      "was not interrupted; go on where processors offer the same, or name the rows in kernels.pin, to have them",
      list);
}

std::string recipe_change_text(const Recipe& before, const Recipe& now) {
  std::string list;
  for (const RecipeDifference& difference : resume_differences(before, now)) {
    list += fmt::format("{}{} is '{}' and was '{}'", list.empty() ? "" : ", ", difference.key, difference.now,
                        difference.before);
  }
  return list;
}

std::string missing_metrics_text(std::int64_t missing, std::int64_t steps) {
  if (missing <= 0) return {};
  return fmt::format(
      "metrics.jsonl lacks the lines of {} of the {} steps up to here: curves and readers of it go without; put it "
      "back "
      "from a copy before a start to have them",
      missing, steps);
}

}  // namespace shoestring
