#include "core/training/device_choice.h"

#include <fmt/core.h>

#include <algorithm>

#include "core/model/device_precision.h"
#include "core/recipe/names.h"
#include "kernels/base/check.h"

namespace shoestring {
namespace {

constexpr const char* kStay = "run.device = cpu trains on the processor";

std::string becomes(const Recipe& recipe, ComputeKind kind) {
  return fmt::format("{}: {}", word(recipe.precision.policy),
                     device_precision(recipe.precision, recipe.model.experts > 0, kind).text);
}

void check_precision(const Recipe& recipe, std::optional<ComputeKind> kind, const std::string& where) {
  const std::string refusal = precision_refusal(recipe.precision, recipe.model.experts > 0, kind, where);
  if (!refusal.empty()) fail(ExitCode::bad_recipe, "{}", refusal);
}

// `why` no device was taken, though somebody may have thought of one; empty where nobody did.
DeviceChoice on_processor(const Recipe& recipe, const std::string& why) {
  check_precision(recipe, ComputeKind::cpu, "the processor");
  std::string text = fmt::format("device: the processor; {}", becomes(recipe, ComputeKind::cpu));
  if (!why.empty()) text += fmt::format("\nno CUDA device is used: {}; run.device = cuda would refuse that", why);
  if (!why.empty() && !recipe.budget.hardware.empty()) {
    text += fmt::format(
        "\nbudget.hardware = {}: what is said of utilisation and energy sets a processor's time beside its figures",
        recipe.budget.hardware);
  }
  return {{}, text};
}

std::string several_ranks(int ranks) {
  return fmt::format("of {} ranks gradients are not exchanged between CUDA devices yet", ranks);
}

/// What a run on a CUDA device cannot ask for.
void check_asked(const Recipe& recipe, int ranks, const std::string& where) {
  if (ranks > 1) {
    fail(ExitCode::bad_recipe, "run.device = cuda: {}; start one rank on {}, or {}", several_ranks(ranks), where,
         kStay);
  }
  const auto asks = [&](const PhaseSpec& phase) { return !suites_of(recipe, phase).empty(); };
  if (std::any_of(recipe.phases.begin(), recipe.phases.end(), asks)) {
    fail(ExitCode::bad_recipe,
         "evaluation.suites: attention over kept keys has no row on {}; leave the suites out and ask them of the "
         "checkpoints (shoestring evaluate), or {}",
         where, kStay);
  }
}

}  // namespace

bool looks_for_devices(const Recipe& recipe) {
  if (recipe.run.device == RunDevice::automatic) return recipe.budget.hardware != "cpu";
  return recipe.run.device == RunDevice::cuda;
}

DeviceKind planned_device(const Recipe& recipe) {
  const bool meant = recipe.run.device == RunDevice::cuda || !recipe.budget.hardware.empty();
  return meant && looks_for_devices(recipe) ? DeviceKind::cuda : DeviceKind::cpu;
}

DeviceChoice choose_device(const Recipe& recipe, int ranks, const CudaFacts& facts) {
  if (!looks_for_devices(recipe)) return on_processor(recipe, "");
  const bool asked = recipe.run.device == RunDevice::cuda;
  if (!asked && ranks > 1 && !facts.devices.empty()) return on_processor(recipe, several_ranks(ranks));
  constexpr int kIndex = 0;  // of those in CUDA_VISIBLE_DEVICES: a run has one rank there
  const CudaJudgement judgement = judge_cuda(facts, kIndex);
  if (!asked && nothing_there(judgement.state)) {
    return on_processor(recipe, recipe.budget.hardware.empty() ? "" : judgement.text);
  }
  if (judgement.state != CudaState::usable) {
    fail(ExitCode::missing_input, "run.device = {}: {}; or {}", word(recipe.run.device), judgement.text, kStay);
  }
  const CudaDeviceFacts& found = facts.devices[kIndex];
  const Device device{DeviceKind::cuda, kIndex};
  const std::optional<ComputeKind> kind = compute_kind(found.capability);
  const std::string where = fmt::format("{} ({}, compute capability {}.{})", to_string(device), found.name,
                                        found.capability / 10, found.capability % 10);
  check_precision(recipe, kind, where);
  check_asked(recipe, ranks, where);
  return {device, fmt::format("device: {}; {}", where, becomes(recipe, *kind))};
}

}  // namespace shoestring
