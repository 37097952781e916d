// What a run will hold, before it holds anything: the plan of its memory, and what would make it smaller.
#include <fmt/core.h>

#include <algorithm>

#include "core/training/run_resources.h"
#include "core/training/suite_evaluation.h"

namespace shoestring {

void RunResources::check_room_in_memory(const MachineShare& share) const {
  const MemoryPlan plan = memory_plan(recipe_);
  if (share.device.kind == DeviceKind::cpu) return check_memory(share.memory, plan);
  check_device_memory(share.device_memory, {share.device, plan, recipe_.optimizer.state},
                      [&] { return memory_changes(share.device); });
  MemoryPlan here;  // in the host's memory
  if (recipe_.optimizer.state == StateMemory::host) here.moments = plan.moments;
  check_memory(share.memory, here);
}

// Sets of three changes, the cheapest first: smaller micro-batches cost some speed, moments in BF16 some precision,
// state in the host's memory its way in every update.
std::vector<MemoryChange> RunResources::memory_changes(Device device) const {
  std::vector<MemoryChange> changes;
  const auto larger = [](const PhaseSpec& phase) { return phase.micro_batch > 1; };
  const bool possible[] = {std::any_of(recipe_.phases.begin(), recipe_.phases.end(), larger),
                           recipe_.precision.moments != MomentFormat::bf16,
                           recipe_.optimizer.state != StateMemory::host};
  constexpr const char* kNames[] = {"phase.NAME.micro_batch = 1", "precision.moments = bf16", "optimizer.state = host"};
  for (unsigned set = 1; set < 8; ++set) {
    std::string names;
    bool all_possible = true;
    for (unsigned i = 0; i < 3; ++i) {
      if ((set >> i & 1U) == 0) continue;
      names += fmt::format("{}{}", names.empty() ? "" : " with ", kNames[i]);
      all_possible = all_possible && possible[i];
    }
    if (!all_possible) continue;
    Recipe changed = recipe_;
    if ((set & 1U) != 0) {
      for (PhaseSpec& phase : changed.phases) phase.micro_batch = 1;
    }
    if ((set & 2U) != 0) changed.precision.moments = MomentFormat::bf16;
    if ((set & 4U) != 0) changed.optimizer.state = StateMemory::host;
    changes.push_back({names, {device, memory_plan(changed), changed.optimizer.state}});
  }
  return changes;
}

// Of the phase that takes the most. Where phases train different weights, they pass from one model to the next.
MemoryPlan RunResources::memory_plan(const Recipe& recipe) const {
  MemoryPlan most;
  bool refits = false;
  for (int phase = 0; phase < static_cast<int>(recipe_.phases.size()); ++phase) {
    refits = refits || adapts(phase) != adapts(0);
    const bool declared = &recipe == &recipe_ && adapts(phase) == adapts(0);
    const std::unique_ptr<Transformer> other = declared ? nullptr : declare(recipe, phase);
    const MemoryPlan plan = plan_memory(other ? *other : *model_, recipe, layout_, phase);
    if (plan.total() > most.total()) most = plan;
  }
  if (refits) most.merged = std::max(most.merged, most.model.parameters);
  most.suites = suite_bytes();
  return most;
}

// While a phase's questions are asked.
std::int64_t RunResources::suite_bytes() const {
  std::int64_t most = 0;
  for (const std::vector<SuiteRequest>& requests : suites_) {
    if (requests.empty()) continue;
    most = std::max(most, SuiteEvaluator::bytes(*model_, *tokenizer_, requests));
  }
  return most;
}

}  // namespace shoestring
