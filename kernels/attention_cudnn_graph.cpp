// Plans for attention's graph: which engine of the library takes it on a device, asked once, and its execution.
#include "kernels/attention_cudnn_graph.h"

#include <cuda_runtime_api.h>
#include <fmt/core.h>

#include <array>
#include <cmath>
#include <map>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

#include "kernels/attention_cudnn_library.h"
#include "kernels/attention_cudnn_operations.h"
#include "kernels/base/check.h"
#include "kernels/base/cuda_check.h"

namespace shoestring::attention::cudnn {
namespace {

// From sm_100 on the library's heuristics may propose engines for the deterministic graph that sum by atomics all the
// same (cudnn-frontend names one engine and its knobs there).
constexpr int kMostCapability = 99;

// What headers before 9.8 do not name, by its documented value.
#if CUDNN_VERSION < 90800
constexpr auto kDeviceProperties = static_cast<cudnnBackendDescriptorType_t>(38);
constexpr auto kHeuristicDevice = static_cast<cudnnBackendAttributeName_t>(204);
constexpr auto kPlanDevice = static_cast<cudnnBackendAttributeName_t>(407);
constexpr auto kDeviceJson = static_cast<cudnnBackendAttributeName_t>(2702);
#else
constexpr auto kDeviceProperties = CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR;
constexpr auto kHeuristicDevice = CUDNN_ATTR_ENGINEHEUR_DEVICEPROP;
constexpr auto kPlanDevice = CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP;
constexpr auto kDeviceJson = CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION;
#endif

/// The engine configurations that the library proposes, best first.
std::vector<Descriptor> proposals(const Descriptor& graph, cudnnBackendHeurMode_t mode, const Descriptor* device) {
  Descriptor heuristics(CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR);
  heuristics.set(CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, graph);
  heuristics.set(CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, &mode);
  if (device != nullptr) heuristics.set(kHeuristicDevice, *device);
  if (heuristics.try_finalize() != CUDNN_STATUS_SUCCESS) return {};
  std::int64_t count = 0;
  dnn_check(
      library().get(heuristics.get(), CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_TYPE_BACKEND_DESCRIPTOR, 0, &count, nullptr),
      "the number of engines");
  std::vector<Descriptor> all;
  std::vector<cudnnBackendDescriptor_t> handles;
  for (std::int64_t i = 0; i < count; ++i) {
    handles.push_back(all.emplace_back(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR).get());
  }
  std::int64_t found = 0;  // fewer than there were: those that the device cannot run are left out
  if (count > 0) {
    dnn_check(library().get(heuristics.get(), CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_TYPE_BACKEND_DESCRIPTOR, count,
                            &found, handles.data()),
              "the engines");
  }
  while (static_cast<std::int64_t>(all.size()) > found) all.pop_back();
  return all;
}

}  // namespace

struct Plan {
  Operations operations;
  std::optional<Descriptor> plan;
  cudnnHandle_t handle = nullptr;
};

void PlanDeleter::operator()(Plan* plan) const { delete plan; }

namespace {

/// With a handle of a device, or for one that `device` describes.
Answer ask(const Graph& graph, cudnnHandle_t handle, const Descriptor* device, bool compile) {
  Answer answer;
  answer.plan.reset(new Plan);
  Plan& plan = *answer.plan;
  plan.handle = handle;
  plan.operations = operations_of(graph);
  std::vector<cudnnBackendDescriptor_t> operations;
  for (const Descriptor& operation : plan.operations.operations) operations.push_back(operation.get());
  Descriptor whole(CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);
  whole.set(CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR, static_cast<std::int64_t>(operations.size()),
            operations.data());
  if (handle != nullptr) whole.set(CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, 1, &handle);
  whole.finalize("the graph");
  std::string why = "it proposes no engine";
  for (const cudnnBackendHeurMode_t mode : {CUDNN_HEUR_MODE_A, CUDNN_HEUR_MODE_FALLBACK}) {
    for (const Descriptor& engine : proposals(whole, mode, device)) {
      if (!compile) return answer;
      Descriptor made(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR);
      if (handle != nullptr) made.set(CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, 1, &handle);
      made.set(CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, engine);
      if (device != nullptr) made.set(kPlanDevice, *device);
      if (const cudnnStatus_t status = made.try_finalize(); status != CUDNN_STATUS_SUCCESS) {
        why = text_of(status);
        continue;
      }
      dnn_check(library().get(made.get(), CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, CUDNN_TYPE_INT64, 1, nullptr,
                              &answer.workspace_bytes),
                "the size of the workspace");
      plan.plan.emplace(std::move(made));
      return answer;
    }
  }
  answer.refusal =
      fmt::format("cuDNN {} has no engine for {}: {}", version_text(library().version()), graph.to_string(), why);
  return answer;
}

/// One handle per device, and what was asked so far. Guarded by `mutex`. Never destroyed: the library may be gone
/// first.
struct Session {
  std::mutex mutex;
  std::map<int, cudnnHandle_t> handles;
  std::map<std::pair<int, Graph>, Answer> answers;
};

Session& session() {
  static Session& instance = *new Session;
  return instance;
}

}  // namespace

std::string library_fault() { return library().fault; }

const Answer& answer_on(Device device, const Graph& graph) {
  const std::scoped_lock lock(session().mutex);
  const std::pair<int, Graph> key{device.index, graph};
  if (const auto known = session().answers.find(key); known != session().answers.end()) return known->second;
  if (graph.backward && device_properties(device).capability > kMostCapability) {
    Answer& answer = session().answers[key];
    answer.refusal = "a deterministic backward pass is known of sm_80 to sm_90 only";
    return answer;
  }
  cuda_check(cudaSetDevice(device.index), "cudaSetDevice");
  cudnnHandle_t& handle = session().handles[device.index];
  if (handle == nullptr) dnn_check(library().create(&handle), "cudnnCreate");
  return session().answers.emplace(key, ask(graph, handle, nullptr, true)).first->second;
}

Answer answer_for(const std::string& device_json, const Graph& graph, bool compile) {
  Descriptor device(kDeviceProperties);
  device.set(kDeviceJson, CUDNN_TYPE_CHAR, static_cast<std::int64_t>(device_json.size()), device_json.data())
      .finalize("the device's properties");
  return ask(graph, nullptr, &device, compile);
}

void execute(const Graph& graph, const Answer& answer, const Memory& memory, float scale, Stream& stream) {
  alignas(16) std::array<float, 12> scalars{};  // one in each 16 bytes
  scalars[0] = scale;
  scalars[4] = -INFINITY;
  scalars[8] = 1;
  std::vector<std::int64_t> uids;
  std::vector<void*> pointers;
  const auto give = [&](Uid uid, void* pointer) {
    uids.push_back(uid);
    pointers.push_back(pointer);
  };
  for (int which = 0; which < (graph.backward ? kOperands : kDo); ++which) {
    const auto at = static_cast<std::size_t>(which);
    give(kOperand + which, memory.data[at]);
    if (graph.ragged) give(kOffsets + which, memory.offsets[at]);
  }
  if (graph.ragged) give(kLengths, memory.lengths);
  if (graph.backward) give(kSums, memory.sums);
  for (std::int64_t i = 0; i < (graph.backward ? 3 : 2); ++i)
    give(kScale + i, &scalars[static_cast<std::size_t>(4 * i)]);
  Descriptor pack(CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR);
  const auto count = static_cast<std::int64_t>(uids.size());
  pack.set(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, count, uids.data())
      .set(CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, count, pointers.data())
      .set(CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1, &memory.workspace)
      .finalize("a list of pointers");
  const std::scoped_lock lock(session().mutex);  // a handle has one stream at a time
  dnn_check(library().set_stream(answer.plan->handle, cuda_stream(stream)), "cudnnSetStream");
  dnn_check(library().execute(answer.plan->handle, answer.plan->plan->get(), pack.get()), "attention");
}

}  // namespace shoestring::attention::cudnn
