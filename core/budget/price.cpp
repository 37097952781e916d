#include "core/budget/price.h"

#include <limits>

#include "kernels/base/check.h"

namespace shoestring {

std::optional<Price> price_of(const BudgetSpec& budget) {
  if (budget.usd_per_gpu_hour <= 0) return std::nullopt;
  return Price{budget.usd_per_gpu_hour, budget.price_source, budget.price_date};
}

double kwh(const Hardware& hardware, double gpu_hours) { return hardware.watts * gpu_hours / 1000; }

Cap cap_of(const BudgetSpec& budget, const Hardware& hardware, const Spent& before) {
  Cap cap;
  cap.gpu_hours = std::numeric_limits<double>::infinity();
  cap.job_hours = budget.job_hours > 0 ? budget.job_hours : std::numeric_limits<double>::infinity();
  const auto limit = [&](double gpu_hours, const char* key) {
    if (gpu_hours >= cap.gpu_hours) return;
    cap.gpu_hours = gpu_hours;
    cap.from = key;
  };
  if (budget.gpu_hours > 0) limit(budget.gpu_hours, "budget.gpu_hours");
  if (budget.usd > 0) {
    if (budget.usd_per_gpu_hour <= 0) fail(ExitCode::bad_recipe, "budget.usd needs budget.usd_per_gpu_hour");
    limit(before.gpu_hours + (budget.usd - before.usd) / budget.usd_per_gpu_hour, "budget.usd");
  }
  if (budget.kwh > 0) {
    if (hardware.watts <= 0) {
      fail(ExitCode::bad_recipe, "budget.kwh needs the power of '{}': its hardware file gives no watts", hardware.name);
    }
    limit(before.gpu_hours + (budget.kwh - before.kwh) * 1000 / hardware.watts, "budget.kwh");
  }
  return cap;
}

}  // namespace shoestring
