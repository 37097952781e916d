// Attention through cuDNN: pass after pass over documents, and backward group after group of heads.
#include "kernels/attention_cudnn.h"

#include <algorithm>

#include "kernels/attention_cudnn_graph.h"
#include "kernels/attention_documents_cuda.h"
#include "kernels/base/check.h"
#include "kernels/cuda_refusals.h"

namespace shoestring::attention::cudnn {
namespace {

constexpr std::int64_t kAlignment = 256;  // of a workspace

std::int64_t sums_of(const Graph& graph) { return graph.documents * graph.heads * graph.length; }

/// Scratch of one pass, beside the statistics.
std::int64_t bytes_of(const Graph& graph, std::int64_t workspace_bytes) {
  const auto words = [](std::int64_t count) { return Arena::footprint(count * size_bytes(DType::i32)); };
  const std::int64_t row = cuda::offsets_row(static_cast<int>(graph.documents));
  const std::int64_t tables = graph.ragged ? words(graph.documents) + words(kOperands * row) : 0;
  return tables + (graph.backward ? words(sums_of(graph)) : 0) + Arena::footprint(workspace_bytes + kAlignment);
}

/// The first reason of a pass's graph, or that scratch does not suffice.
template <class Args, class GraphOf>
std::string refuses_passes(const Args& args, std::int64_t heads, const GraphOf& graph_of_pass) {
  if (!library_fault().empty()) return library_fault();
  std::int64_t bytes = 0;
  for (const Pass& pass : passes_of(args.document_starts)) {
    const Graph graph = graph_of_pass(pass);
    const Answer& answer = answer_on(args.stream.device(), graph);
    if (!answer.refusal.empty()) return answer.refusal;
    bytes = std::max(bytes, bytes_of(graph, answer.workspace_bytes));
  }
  bytes += Arena::footprint(args.q.shape[0] * heads * size_bytes(DType::f32));
  if (bytes <= args.scratch.left_bytes()) return {};
  return fmt::format("it would take {} bytes of scratch, and {} are left", bytes, args.scratch.left_bytes());
}

void* at(const ConstTensorView& view, std::int64_t head) {
  return static_cast<char*>(const_cast<void*>(view.data)) + head * view.strides[1] * size_bytes(view.dtype);
}

/// From these heads on. A backward pass adds its own.
template <class Args>
Memory memory_of(const Args& args, std::int64_t head, std::int64_t kv_head, float* statistics) {
  Memory memory;
  memory.data[kQ] = at(args.q, head);
  memory.data[kK] = at(args.k, kv_head);
  memory.data[kV] = at(args.v, kv_head);
  memory.data[kO] = at(args.o, head);
  memory.data[kStats] = statistics;
  return memory;
}

void* workspace_in(Arena& scratch, std::int64_t bytes) {
  void* data = scratch.take(DType::u8, {bytes + kAlignment}).data;
  return reinterpret_cast<void*>((reinterpret_cast<std::uintptr_t>(data) + kAlignment - 1) / kAlignment * kAlignment);
}

/// Where a pass's documents lie, for its graph; and the call. `memory.data` is of the batch's first token.
template <class Args>
void run_pass(const Args& args, const Pass& pass, const Graph& graph, Memory memory) {
  const Arena::Scope scope(args.scratch);
  const Answer& answer = answer_on(args.stream.device(), graph);
  check(answer.refusal.empty(), "attention: {}", answer.refusal);
  const auto first = static_cast<std::size_t>(pass.first);
  const auto count = static_cast<std::size_t>(pass.count);
  if (graph.ragged) {
    cuda::DocumentTable table{};
    table.count = static_cast<int>(pass.count);
    table.room = static_cast<int>(pass.documents);
    std::copy_n(&args.document_starts[first], count + 1, table.starts.begin());
    for (std::size_t i = 0; i < kOperands; ++i) {
      table.token_strides[i] = static_cast<std::int32_t>(graph.steps[i].token);
    }
    table.lengths = args.scratch.take(DType::i32, {pass.documents}).template as<std::int32_t>();
    const std::int64_t row = cuda::offsets_row(table.room);
    table.offsets = args.scratch.take(DType::i32, {kOperands, row}).template as<std::int32_t>();
    cuda::write_documents(table, args.stream);
    memory.lengths = table.lengths;
    for (std::size_t i = 0; i < kOperands; ++i) {
      memory.offsets[i] = table.offsets + static_cast<std::int64_t>(i) * row;
    }
  } else {  // they follow each other
    const std::int64_t token = args.document_starts[first];
    for (std::size_t i = 0; i < kOperands; ++i) {
      if (memory.data[i] == nullptr) continue;
      const bool statistics = i == kStats;
      const std::int64_t bytes = statistics ? token * graph.heads * size_bytes(DType::f32)
                                            : token * graph.steps[i].token * size_bytes(DType::bf16);
      memory.data[i] = static_cast<char*>(memory.data[i]) + bytes;
    }
  }
  if (graph.backward) memory.sums = args.scratch.take(DType::f32, {sums_of(graph)}).data;
  memory.workspace = workspace_in(args.scratch, answer.workspace_bytes);
  execute(graph, answer, memory, static_cast<float>(args.scale), args.stream);
}

/// Statistics of heads from `head` on, ours beside room for the library's.
template <class Args>
cuda::Statistics statistics_of(const Args& args, const std::vector<Pass>& passes, std::int64_t head,
                               std::int64_t heads) {
  const std::int64_t tokens = args.q.shape[0];
  auto* ours = static_cast<float*>(const_cast<void*>(ConstTensorView(args.lse).data));
  return {.ours = ours + head * tokens,
          .library = args.scratch.take(DType::f32, {tokens, heads}).template as<float>(),
          .tokens = tokens,
          .heads = heads,
          .length = passes[0].ragged ? 0 : passes[0].length};
}

std::int64_t groups_of(const AttentionBackwardArgs& args, const std::vector<Pass>& passes) {
  const std::int64_t kv_heads = args.k.shape[1];
  return groups_at_once(passes, args.q.shape[1] / kv_heads, kv_heads);
}

}  // namespace

std::string refuses(const AttentionArgs& args) {
  if (std::string reason = needs_cuda(args.stream, {args.q, args.k, args.v, args.o, args.lse, args.segment_start});
      !reason.empty()) {
    return reason;
  }
  if (std::string reason = refuses_arguments(args); !reason.empty()) return reason;
  return refuses_passes(args, args.q.shape[1], [&](const Pass& pass) { return graph_of(args, pass); });
}

std::string refuses(const AttentionBackwardArgs& args) {
  if (std::string reason = needs_cuda(args.stream, {args.q, args.k, args.v, args.o, args.d_o, args.dq, args.dk, args.dv,
                                                    args.lse, args.segment_start});
      !reason.empty()) {
    return reason;
  }
  if (std::string reason = refuses_arguments(args); !reason.empty()) return reason;
  const std::int64_t groups = groups_of(args, passes_of(args.document_starts));
  const std::int64_t group = args.q.shape[1] / args.k.shape[1];
  return refuses_passes(args, groups * group, [&](const Pass& pass) { return graph_of(args, pass, groups); });
}

void forward(const AttentionArgs& args) {
  const Arena::Scope scope(args.scratch);
  const std::vector<Pass> passes = passes_of(args.document_starts);
  const cuda::Statistics statistics = statistics_of(args, passes, 0, args.q.shape[1]);
  const Memory memory = memory_of(args, 0, 0, statistics.library);
  for (const Pass& pass : passes) run_pass(args, pass, graph_of(args, pass), memory);
  cuda::statistics_from_library(statistics, args.stream);
}

void backward(const AttentionBackwardArgs& args) {
  const std::vector<Pass> passes = passes_of(args.document_starts);
  const std::int64_t kv_heads = args.k.shape[1];
  const std::int64_t group = args.q.shape[1] / kv_heads;
  const std::int64_t most = groups_of(args, passes);
  for (std::int64_t kv_head = 0; kv_head < kv_heads; kv_head += most) {
    const Arena::Scope scope(args.scratch);
    const std::int64_t groups = std::min(most, kv_heads - kv_head);
    const std::int64_t head = kv_head * group;
    const cuda::Statistics statistics = statistics_of(args, passes, head, groups * group);
    cuda::statistics_to_library(statistics, args.stream);
    Memory memory = memory_of(args, head, kv_head, statistics.library);
    memory.data[kDo] = at(args.d_o, head);
    memory.data[kDq] = at(args.dq, head);
    memory.data[kDk] = at(args.dk, kv_head);
    memory.data[kDv] = at(args.dv, kv_head);
    for (const Pass& pass : passes) run_pass(args, pass, graph_of(args, pass, groups), memory);
  }
}

}  // namespace shoestring::attention::cudnn
