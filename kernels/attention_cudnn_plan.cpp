#include "kernels/attention_cudnn_plan.h"

#include <fmt/core.h>

#include <algorithm>
#include <bit>
#include <utility>

namespace shoestring::attention::cudnn {
namespace {

constexpr std::uintptr_t kByteAlignment = 16;
constexpr std::int64_t kElementAlignment = 8;
constexpr std::int64_t kFewestPairs = std::int64_t{1} << 22;  // that ragged passes have room for, however short a batch
constexpr std::int64_t kShortestBatch = 128;                  // of documents of one length: shorter ones go as ragged
constexpr std::int64_t kSlack = std::int64_t{1} << 20;        // what plans ask beside the pairs, with much to spare

std::int64_t power_of_two(std::int64_t length) {
  return static_cast<std::int64_t>(std::bit_ceil(static_cast<std::uint64_t>(std::max(length, kShortest))));
}

/// Pairs that the ragged passes of a batch have room for, but for one with a single longer document.
std::int64_t ragged_pairs(std::int64_t tokens) {
  const std::int64_t side = std::min(power_of_two(tokens), std::int64_t{1} << 30);
  return std::clamp(side * side, kFewestPairs, kMostPairs);
}

std::int64_t length_of(std::span<const std::int32_t> starts, std::int64_t document) {
  const auto at = static_cast<std::size_t>(document);
  return starts[at + 1] - starts[at];
}

Steps steps_of(const ConstTensorView& view) { return {view.strides[0], view.strides[1]}; }

template <class Args>
Graph graph_of_inputs(const Args& args, const Pass& pass) {
  Graph graph;
  graph.ragged = pass.ragged;
  graph.documents = pass.documents;
  graph.length = pass.length;
  graph.heads = args.q.shape[1];
  graph.kv_heads = args.k.shape[1];
  graph.qk_dim = args.q.shape[2];
  graph.v_dim = args.v.shape[2];
  graph.steps[kQ] = steps_of(args.q);
  graph.steps[kK] = steps_of(args.k);
  graph.steps[kV] = steps_of(args.v);
  graph.steps[kO] = steps_of(args.o);
  return graph;
}

void set_statistics(Graph& graph) {
  graph.steps[kStats] = graph.ragged ? Steps{graph.heads, 1} : Steps{1, graph.length};
}

using Named = std::pair<ConstTensorView, const char*>;

template <class Args>
std::string refuses_all(const Args& args, std::initializer_list<Named> tensors) {
  if (args.q.dtype != DType::bf16) return std::string(name(args.q.dtype)) + " is not bf16";
  if (args.q.shape[2] % kElementAlignment != 0 || args.v.shape[2] % kElementAlignment != 0) {
    return "dims of a head are not a multiple of 8";
  }
  if (args.document_starts.empty()) return "the host was not told where documents begin (document_starts)";
  for (const auto& [view, which] : tensors) {
    if (reinterpret_cast<std::uintptr_t>(view.data) % kByteAlignment != 0) {
      return fmt::format("{} is not aligned to 16 bytes", which);
    }
    if (view.strides[0] % kElementAlignment != 0 || view.strides[1] % kElementAlignment != 0) {
      return fmt::format("strides of {} are not multiples of 8", which);
    }
    if (args.q.shape[0] * std::max(view.strides[0], view.shape[1]) > INT32_MAX) {
      return fmt::format("{} has 2^31 elements or more", which);
    }
  }
  return {};
}

}  // namespace

std::string Graph::to_string() const {
  return fmt::format("a {} pass over {} documents of {} {} tokens, {} heads sharing {} of {} and {} dims",
                     backward ? "deterministic backward" : "forward", documents, ragged ? "up to" : "just", length,
                     heads, kv_heads, qk_dim, v_dim);
}

std::vector<Pass> passes_of(std::span<const std::int32_t> starts) {
  const auto documents = static_cast<std::int64_t>(starts.size()) - 1;
  const std::int64_t first_length = length_of(starts, 0);
  bool alike = first_length >= kShortestBatch;
  for (std::int64_t d = 1; d < documents && alike; ++d) alike = length_of(starts, d) == first_length;
  std::vector<Pass> passes;
  if (alike) {
    const std::int64_t room = std::max<std::int64_t>(kMostPairs / (first_length * first_length), 1);
    for (std::int64_t d = 0; d < documents; d += room) {
      const std::int64_t count = std::min(room, documents - d);
      passes.push_back({d, count, false, count, first_length});
    }
    return passes;
  }
  const std::int64_t pairs = ragged_pairs(starts.back());
  const auto room = [&](std::int64_t length) {
    return std::clamp<std::int64_t>(pairs / (length * length), 1, kMostDocuments);
  };
  Pass pass{0, 0, true, 0, 0};
  for (std::int64_t d = 0; d < documents; ++d) {
    const std::int64_t length = std::max(pass.length, power_of_two(length_of(starts, d)));
    if (pass.count > 0 && pass.count + 1 > room(length)) {
      passes.push_back(pass);
      pass = {d, 0, true, 0, 0};
    }
    ++pass.count;
    pass.length = std::max(pass.length, power_of_two(length_of(starts, d)));
    pass.documents = room(pass.length);
  }
  passes.push_back(pass);
  return passes;
}

std::int64_t groups_at_once(std::span<const Pass> passes, std::int64_t group, std::int64_t kv_heads) {
  std::int64_t pairs = 1;
  for (const Pass& pass : passes) pairs = std::max(pairs, pass.documents * pass.length * pass.length);
  std::int64_t groups = std::clamp<std::int64_t>(kWorkspaceBytes / (2 * group * pairs), 1, kv_heads);
  while (kv_heads % groups != 0) --groups;
  return groups;
}

Graph graph_of(const AttentionArgs& args, const Pass& pass) {
  Graph graph = graph_of_inputs(args, pass);
  set_statistics(graph);
  return graph;
}

Graph graph_of(const AttentionBackwardArgs& args, const Pass& pass, std::int64_t groups) {
  Graph graph = graph_of_inputs(args, pass);
  graph.backward = true;
  graph.heads = groups * graph.group();
  graph.kv_heads = groups;
  graph.steps[kDo] = steps_of(args.d_o);
  graph.steps[kDq] = steps_of(args.dq);
  graph.steps[kDk] = steps_of(args.dk);
  graph.steps[kDv] = steps_of(args.dv);
  set_statistics(graph);
  return graph;
}

std::string refuses_arguments(const AttentionArgs& args) {
  return refuses_all(args, {{args.q, "q"}, {args.k, "k"}, {args.v, "v"}, {args.o, "o"}});
}

std::string refuses_arguments(const AttentionBackwardArgs& args) {
  if (std::string reason = refuses_all(args, {{args.q, "q"},
                                              {args.k, "k"},
                                              {args.v, "v"},
                                              {args.o, "o"},
                                              {args.d_o, "d_o"},
                                              {args.dq, "dq"},
                                              {args.dk, "dk"},
                                              {args.dv, "dv"}});
      !reason.empty()) {
    return reason;
  }
  for (const Pass& pass : passes_of(args.document_starts)) {
    const std::int64_t bytes = 2 * (args.q.shape[1] / args.k.shape[1]) * pass.documents * pass.length * pass.length;
    if (bytes > kMostWorkspace) {
      return fmt::format("a deterministic pass over a document of {} tokens would take {} bytes for each key head",
                         pass.length, bytes);
    }
  }
  return {};
}

std::int64_t scratch_bytes(const AttentionShape& shape) {
  const std::int64_t longest = shape.longest_document > 0 ? shape.longest_document : shape.tokens;
  const std::int64_t side = power_of_two(longest);
  const std::int64_t pairs = std::max(ragged_pairs(shape.tokens), side * side);
  const std::int64_t group = shape.heads / shape.kv_heads;
  const std::int64_t most = std::min(std::max(kWorkspaceBytes, 2 * group * pairs), kMostWorkspace);
  // Rows of heads that a pass has room for: a batch has no more than there are; of a ragged pass workspace is the
  // bound.
  const std::int64_t rows =
      std::max(shape.tokens * shape.heads, std::min(most / (2 * kShortest), pairs / kShortest * shape.heads));
  const std::int64_t statistics = size_bytes(DType::f32) * (shape.tokens * shape.heads + rows);  // and sums
  // Of heads that share keys, the library keeps dk and dv of each before it sums them.
  const std::int64_t each = group > 1 ? size_bytes(DType::bf16) * rows * (shape.qk_dim + shape.v_dim) : 0;
  return std::min(most, 2 * shape.heads * pairs) + each + statistics + kSlack;
}

}  // namespace shoestring::attention::cudnn
