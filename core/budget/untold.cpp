#include "core/budget/untold.h"

#include <fmt/core.h>

#include <algorithm>

namespace shoestring {
namespace {

// Metrics and ledger read their clocks one after the other, and a bill is right within 1%.
constexpr double kAgree = 0.01;
constexpr double kAgreeSeconds = 0.1;

}  // namespace

std::string untold_bill(const LedgerHistory& history, const Curve& metrics, std::int64_t saved_step) {
  if (!history.attempts.empty() && history.attempts.back().state == AttemptState::running) return {};
  double told = 0;
  std::int64_t metrics_step = 0;
  for (const CurvePoint& point : metrics.points) {
    told = std::max(told, point.gpu_hours);
    metrics_step = std::max(metrics_step, point.step);
  }
  std::int64_t ledger_step = 0;
  for (const AttemptHistory& attempt : history.attempts) ledger_step = std::max(ledger_step, attempt.last().step);
  const double charged = history.charged_gpu_seconds() / 3600;
  const char* const remedy =
      "an old copy of the ledger was put back, lines of it are gone, or what stands beside it is another run's; put "
      "the "
      "newer ledger back to have a whole bill";
  if (told > charged * (1 + kAgree) + kAgreeSeconds / 3600) {
    return fmt::format(
        "the ledger tells of {:.4g} GPU-hours, metrics.jsonl beside it of {:.4g} up to step {}: bill and cap lack the "
        "difference. Either {}",
        charged, told, metrics_step, remedy);
  }
  if (saved_step > std::max(ledger_step, metrics_step)) {
    return fmt::format(
        "the newest checkpoint is of step {}, and ledger and metrics.jsonl end at step {}: bill and cap lack what the "
        "steps between cost. Either {}",
        saved_step, std::max(ledger_step, metrics_step), remedy);
  }
  return {};
}

}  // namespace shoestring
