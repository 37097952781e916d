// On which device a rank trains (run.device): chosen, or refused, before anything is spent. What devices there are
// comes in as facts, so that each answer is tested without one.
#pragma once

#include <string>

#include "core/recipe/recipe.h"
#include "kernels/base/cuda_facts.h"
#include "kernels/base/device.h"

namespace shoestring {

/// Whether it depends on what CUDA devices there are; asking takes the driver a moment.
bool looks_for_devices(const Recipe& recipe);

/// Where the recipe means its tensors to lie, whatever this machine has: for plans.
DeviceKind planned_device(const Recipe& recipe);

struct DeviceChoice {
  Device device;
  std::string text;  ///< for a run's first lines: where it trains, and what its precision becomes there
};

/// For a run of `ranks` ranks. `automatic` takes a CUDA device where the driver shows one, the processor where nothing
/// is there, budget.hardware = cpu, or there are several ranks, which devices do not serve yet; a device that is there
/// and does not serve is an error, never a reason to take the processor. Throws Error(missing_input) where the machine,
/// the driver or this program lacks something, and Error(bad_recipe) where the recipe asks what the device cannot.
DeviceChoice choose_device(const Recipe& recipe, int ranks, const CudaFacts& facts);

}  // namespace shoestring
