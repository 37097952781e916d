// Money and energy from GPU-hours. There is no hidden default price: without one there is no money anywhere.
#pragma once

#include <optional>
#include <string>

#include "core/budget/hardware.h"
#include "core/recipe/recipe.h"

namespace shoestring {

/// What a device-hour costs, by whom and when.
struct Price {
  double usd_per_gpu_hour = 0;
  std::string source;
  std::string date;  ///< ISO 8601

  double usd(double gpu_hours) const { return gpu_hours * usd_per_gpu_hour; }
};

std::optional<Price> price_of(const BudgetSpec& budget);

/// Energy of `gpu_hours` at the device's stated power; 0 if the power is not known.
double kwh(const Hardware& hardware, double gpu_hours);

/// What was spent, in each of the three measures.
struct Spent {
  double gpu_hours = 0;
  double usd = 0;
  double kwh = 0;
};

/// The limits of a run. Infinite where not given.
struct Cap {
  double gpu_hours = 0;  ///< what binds of budget.gpu_hours, .usd and .kwh, in GPU-hours, over all attempts
  std::string from;      ///< the key that binds: "budget.usd"
  double job_hours = 0;  ///< wall-clock hours of this attempt
};

/// Money and energy become GPU-hours at the present price and power; `before`, what earlier attempts spent, counts at
/// theirs. Throws Error(bad_recipe) if budget.kwh is given for hardware of unknown power.
Cap cap_of(const BudgetSpec& budget, const Hardware& hardware, const Spent& before = {});

}  // namespace shoestring
