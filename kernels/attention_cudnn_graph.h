// cuDNN itself, for attention_cudnn.cpp: the library, its graph of attention, its plans. Tests put a stand-in behind
// this header where there is no device (tests/emulator/cudnn.cpp), and ask the library without one (`answer_for`).
#pragma once

#include <array>
#include <memory>
#include <string>

#include "kernels/attention_cudnn_plan.h"

namespace shoestring::attention::cudnn {

/// Why the library cannot be used; empty when it can. Loads it.
std::string library_fault();

/// A plan of the library's for a graph, on one device.
struct Plan;
struct PlanDeleter {
  void operator()(Plan* plan) const;
};

/// What the library says to a graph.
struct Answer {
  std::string refusal;               ///< why it has no engine for it; empty when it has
  std::int64_t workspace_bytes = 0;  ///< of the plan
  std::unique_ptr<Plan, PlanDeleter> plan{};
};

/// Asked once for each graph and device; takes the library seconds. Throws Error(bug) where it fails.
const Answer& answer_on(Device device, const Graph& graph);

/// What it says for a device that need not be there, described as cuDNN's JSON of device properties has it. Without
/// `compile` there is no plan, only whether an engine takes the graph.
Answer answer_for(const std::string& device_json, const Graph& graph, bool compile);

/// Device memory of one call.
struct Memory {
  std::array<void*, kOperands> data{};     ///< of the first document's first token; ragged: of the offsets' zero
  std::array<void*, kOperands> offsets{};  ///< ragged: i32 [documents + 1] each, in elements of the operand
  void* lengths = nullptr;                 ///< ragged: i32 [documents]
  void* sums = nullptr;                    ///< backward: f32 [documents, heads, length], scratch
  void* workspace = nullptr;               ///< of as many bytes as the answer says
};
/// Enqueues the plan of `graph`'s answer on the stream.
void execute(const Graph& graph, const Answer& answer, const Memory& memory, float scale, Stream& stream);

}  // namespace shoestring::attention::cudnn
