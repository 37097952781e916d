// Not for users of schedules: the event simulation behind transfers and prediction.
#pragma once

#include <functional>
#include <span>

#include "parallel/schedule_check.h"

namespace shoestring {

/// Called for each cell (or single computation) in the order in which they end.
using OnCell = std::function<void(int rank, std::span<const Action> cell, double start, double end)>;

/// Runs the computations of `schedule` in simulated time, transfers in the lists ignored. Returns what each stuck rank
/// waits for, empty when everything ran.
std::string simulate(const Schedule& schedule, const ActionTimes& times, const OnCell& on_cell);

}  // namespace shoestring
