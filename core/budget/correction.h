// What steps that were really taken say of an estimate, cost by cost: computing is a matter of this machine's kernels,
// messages of its links, so one factor for both would be wrong on any other layout or number of devices.
#pragma once

#include <string>

#include "core/budget/planner.h"
#include "core/budget/step_cost.h"

namespace shoestring {

/// Multiplies the parts of a step. 1: as on paper; so where a part was not there to be measured.
struct Correction {
  double compute = 1;   ///< computing, recomputation and the optimizer's update
  double messages = 1;  ///< of tensor, expert and data parallelism, as far as nothing hides them
  double bubble = 1;    ///< stages that wait
  double others = 0;  ///< what no estimate holds (waiting for data, what is between the scopes), as a share of the rest

  bool measured() const { return compute != 1 || messages != 1 || bubble != 1 || others != 0; }
  /// "computing x 1.31, messages x 0.80, ..."; of what was measured only.
  std::string text() const;
};

/// `paper`: the estimate of the very layout on which `measured` was taken. A part of which either is below a
/// thousandth of its step is left as on paper.
Correction correction_of(const StepParts& paper, const PhaseSpeed& measured);

StepParts corrected(const StepParts& paper, const Correction& correction);

}  // namespace shoestring
