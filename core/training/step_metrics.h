// A step's outcome as the line of metrics.jsonl that it becomes.
#pragma once

#include <vector>

#include "core/training/engine.h"
#include "core/training/metrics.h"
#include "core/training/training_state.h"

namespace shoestring {

/// MaxVio of each mixture: its largest expert load over the mean, minus 1. `router_counts` is [mixtures, experts].
std::vector<double> max_violations(const Tensor& router_counts);

/// All of StepMetrics but its timing: a function of recipe, data and decisions. `state` counts the step already.
StepMetrics step_metrics(const StepOutcome& outcome, const TrainingState& state, const std::string& phase);

}  // namespace shoestring
