// What one optimizer step takes on a layout, and what a device must hold for it. Layers are dealt to stages, stages run
// through the simulator of the schedule that the runtime would execute, and what remains is added: gradients,
// optimizer.
#pragma once

#include <string>

#include "core/budget/layer_cost.h"

namespace shoestring {

/// Seconds of a step on the busiest device; the parts add up to `seconds`.
struct StepParts {
  double compute = 0;    ///< products, attention, what passes over memory
  double recompute = 0;  ///< forward work that backward repeats
  double tensor = 0;     ///< exposed messages of tensor and context parallelism
  double expert = 0;     ///< exposed exchange of experts
  double data = 0;       ///< exposed gathering of shards and reduction of gradients
  double bubble = 0;     ///< stages that wait, messages between stages included
  double optimizer = 0;
  double total() const { return compute + recompute + tensor + expert + data + bubble + optimizer; }
};

/// Bytes on the fullest device.
struct DeviceMemory {
  double weights = 0;  ///< masters and the copies that products read
  double gradients = 0;
  double moments = 0;
  double activations = 0;  ///< of all micro-batches in flight
  double working = 0;      ///< logits, recomputed layers, gathered shards, exchange buffers
  double reserved = 0;     ///< by the driver and the communicators
  double total() const { return weights + gradients + moments + activations + working + reserved; }
};

struct StepEstimate {
  StepParts seconds;
  DeviceMemory memory;
  double tokens = 0;  ///< of all devices
  double flops = 0;   ///< of all devices: products and causal attention, nothing twice (core/model/accounting.h)
  double attention_flops = 0;  ///< of those, the attention core's
  double parameters = 0;       ///< of the whole model
  double tokens_per_device_second(int devices) const { return tokens / seconds.total() / devices; }
};

struct StepQuestion {
  PlannedModel model;
  PrecisionSpec precision;
  PlanLayout layout;
  double sequence = 0;  ///< tokens
};

/// Why `question` can have no answer, empty where it can: axes that do not divide what they cut, a schedule that
/// refuses.
std::string impossible(const StepQuestion& question);

/// Whether the pipeline's schedule is run in simulated time, or its waiting left out for a quick look.
enum class Detail { simulated, unwaiting };

/// Throws Error(bad_recipe) with that reason, or where the hardware lacks a figure.
StepEstimate estimate_step(const StepQuestion& question, const Hardware& hardware, const Stack& stack,
                           Detail detail = Detail::simulated);

}  // namespace shoestring
