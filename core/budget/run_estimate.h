// What a recipe's whole run takes on given devices: the best layout of every phase, its steps, and what failures and
// checkpoints add; with an 80% interval and what it leans on. Nothing is measured, but steps that were can
// correct it; see planner.h for plans from such steps alone.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "core/budget/correction.h"
#include "core/budget/goodput.h"
#include "core/budget/step_cost.h"

namespace shoestring {

/// A layout that was looked at.
struct RankedLayout {
  PlanLayout layout;
  std::optional<StepEstimate> step;  ///< nothing: it cannot be, or does not fit
  double memory_bytes = 0;           ///< of the fullest device
  std::string reason;                ///< why it is no candidate; empty: it is one
};

/// Every layout of `devices` for one phase, the fastest first, then those that do not fit, the nearest first.
/// `fixed`: the only layout to look at. `correction`: of every step, before they are ranked.
std::vector<RankedLayout> rank_layouts(const Recipe& recipe, const ModelConfig& config, const PhaseSpec& phase,
                                       const Hardware& hardware, int devices, const std::optional<PlanLayout>& fixed,
                                       const Correction& correction = {});

struct PhaseEstimate {
  std::string name;
  double tokens = 0;
  double steps = 0;
  double gpu_hours = 0;  ///< goodput included
  RankedLayout layout;
};

struct RunEstimate {
  std::vector<PhaseEstimate> phases;  ///< empty: a phase has no layout that fits; `refusal` says so
  std::string refusal;
  int devices = 1;
  Goodput goodput;
  double spread = 0;  ///< of the 80% interval: gpu_hours / (1 + spread) to gpu_hours * (1 + spread)
  double watts = 0;
  std::vector<std::string> assumptions;  ///< the one it leans on most first

  double tokens() const;
  double steps() const;
  double gpu_hours() const;
  double low_gpu_hours() const { return gpu_hours() / (1 + spread); }
  double high_gpu_hours() const { return gpu_hours() * (1 + spread); }
  double days() const { return gpu_hours() / devices / 24; }
  double kwh() const { return watts * gpu_hours() / 1000; }
};

/// `cap_gpu_hours`: what the phases share where the budget is the horizon; infinite where there is none. `corrections`:
/// of each phase, or none; steps that were measured speak for the device, whose rates nobody need assume then.
RunEstimate estimate_run(const Recipe& recipe, const ModelConfig& config, const Hardware& hardware, int devices,
                         const std::optional<PlanLayout>& fixed, double cap_gpu_hours,
                         const std::vector<Correction>& corrections = {});

/// One correction per phase, from steps that `speeds` measured on `layout`, of this hardware.
std::vector<Correction> corrections_of(const Recipe& recipe, const ModelConfig& config, const Hardware& hardware,
                                       const PlanLayout& layout, const Speeds& speeds);

}  // namespace shoestring
