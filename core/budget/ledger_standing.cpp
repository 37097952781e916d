// What a ledger that was read says of its run: how it stands, what it is charged, which decisions hold.
#include <algorithm>

#include "core/budget/ledger_history.h"

namespace shoestring {

bool LedgerHistory::done() const {
  const auto last = std::find_if(attempts.rbegin(), attempts.rend(), [](const auto& attempt) { return attempt.begun; });
  return last != attempts.rend() && last->reason == "done";
}

const AttemptHistory& latest_of(const std::vector<AttemptHistory>& attempts) {
  const auto last = std::find_if(attempts.rbegin(), attempts.rend(),
                                 [](const auto& attempt) { return attempt.reason != kMeasuredOnly; });
  return last == attempts.rend() ? attempts.back() : *last;
}

CategorySeconds LedgerHistory::charged() const {
  CategorySeconds sum;
  for (const AttemptHistory& attempt : attempts) sum += attempt.charged;
  return sum;
}

Spent LedgerHistory::spent(const std::optional<Price>& price, double watts) const {
  Spent sum;
  for (const AttemptHistory& attempt : attempts) {
    const Spent one = spent_by(attempt, price, watts);
    sum.gpu_hours += one.gpu_hours;
    sum.usd += one.usd;
    sum.kwh += one.kwh;
  }
  return sum;
}

Spent spent_by(const AttemptHistory& attempt, const std::optional<Price>& price, double watts) {
  constexpr double kSecondsPerHour = 3600;
  const double hours = attempt.charged.total() / kSecondsPerHour;
  const std::optional<Price>& paid = attempt.start.price ? attempt.start.price : price;
  const double drawn = attempt.start.hardware.watts > 0 ? attempt.start.hardware.watts : watts;
  return {.gpu_hours = hours, .usd = paid ? paid->usd(hours) : 0, .kwh = drawn * hours / 1000};
}

std::vector<HorizonDecision> decisions_until(const LedgerHistory& history, std::int64_t step) {
  std::vector<HorizonDecision> held;
  for (const HorizonDecision& decision : history.decisions) {
    if (decision.step <= step) held.push_back(decision);
  }
  return held;
}

}  // namespace shoestring
