// Stands for cuDNN behind attention's "cudnn" row: it has an engine for everything, and a call is what the CPU's rows
// make of each document that the tables in device memory name, when its stream comes to it. Statistics and gradients go
// where the graph's strides say. The row is not there unless it is asked for, so that attention's own kernel is what
// models train with here.
#include "tests/emulator/cudnn.h"

#include "cuda_runtime_api.h"
#include "kernels/attention_cudnn_graph.h"
#include "kernels/base/copy.h"
#include "kernels/base/workers.h"

namespace shoestring {
namespace emulator_cudnn {

bool& stands_in() {
  static bool value = false;
  return value;
}

}  // namespace emulator_cudnn

namespace attention::cudnn {
namespace {

struct Document {
  const Graph& graph;
  const Memory& memory;
  std::int64_t index;

  std::int64_t tokens() const {
    return graph.ragged ? static_cast<const std::int32_t*>(memory.lengths)[index] : graph.length;
  }
  TensorView operator[](Operand which) const {
    const auto at = static_cast<std::size_t>(which);
    const bool statistics = which == kStats;
    const Steps& s = graph.steps[at];
    const DType dtype = statistics ? DType::f32 : DType::bf16;
    const std::int64_t offset = graph.ragged ? static_cast<const std::int32_t*>(memory.offsets[at])[index]
                                : statistics ? index * graph.heads * graph.length
                                             : index * graph.length * s.token;
    const bool of_keys = which == kK || which == kV || which == kDk || which == kDv;
    const bool wide = which == kQ || which == kK || which == kDq || which == kDk;
    TensorView view;
    view.data = static_cast<char*>(memory.data[at]) + offset * size_bytes(dtype);
    view.dtype = dtype;
    view.shape = {tokens(), of_keys ? graph.kv_heads : graph.heads, statistics ? 1 : wide ? graph.qk_dim : graph.v_dim};
    view.strides = {s.token, s.head, 1};
    return view;
  }
};

/// Ours [heads, tokens] to or from the library's [tokens, heads].
void move_statistics(const TensorView& library, TensorView ours, bool to_library) {
  for (std::int64_t t = 0; t < library.shape[0]; ++t) {
    for (std::int64_t h = 0; h < library.shape[1]; ++h) {
      float& there = library.as<float>()[t * library.strides[0] + h * library.strides[1]];
      float& here = ours.as<float>()[h * library.shape[0] + t];
      (to_library ? there : here) = to_library ? here : there;
    }
  }
}

void run_document(const Document& d, float scale) {
  const std::int64_t tokens = d.tokens();
  if (tokens == 0) return;
  static Workers workers(1);
  static Stream stream(workers);
  const Graph& graph = d.graph;
  Arena scratch(attention_scratch_bytes({tokens, 0, graph.heads, graph.kv_heads, graph.qk_dim, graph.v_dim}, 1), {});
  const Tensor starts(DType::i32, {tokens});
  Tensor statistics(DType::f32, {graph.heads, tokens});
  if (graph.backward) {
    move_statistics(d[kStats], statistics, false);
    attention_backward(
        {d[kDq], d[kDk], d[kDv], d[kDo], d[kQ], d[kK], d[kV], d[kO], statistics, starts, scale, scratch, stream});
  } else {
    attention_forward({d[kO], statistics, d[kQ], d[kK], d[kV], starts, scale, scratch, stream});
    move_statistics(d[kStats], statistics, true);
  }
}

}  // namespace

struct Plan {};
void PlanDeleter::operator()(Plan* plan) const { delete plan; }

std::string library_fault() { return emulator_cudnn::stands_in() ? "" : "the emulated device has no cuDNN"; }

const Answer& answer_on(Device, const Graph& graph) {
  static Answer answer;
  answer.workspace_bytes = graph.backward ? 2 * graph.heads * graph.pairs() : 0;
  return answer;
}

void execute(const Graph& graph, const Answer&, const Memory& memory, float scale, Stream& stream) {
  emulator::enqueue(static_cast<cudaStream_t>(stream.native()), [=] {
    for (std::int64_t i = 0; i < graph.documents; ++i) run_document({graph, memory, i}, scale);
  });
}

}  // namespace attention::cudnn
}  // namespace shoestring
