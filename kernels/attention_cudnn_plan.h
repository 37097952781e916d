// What is decided about attention before cuDNN sees it, for attention_cudnn.cpp: which passes of the library a
// micro-batch's documents make, and what their graphs look like. Needs neither the library nor a device, so that tests
// reach it anywhere; nothing here reads what a tensor's pointer points to.
//
// A graph has a fixed number of documents and a longest length, and making a plan of one takes the library seconds. So
// documents that differ in length are cut, in their order, into passes of a few sizes only: up to 512, 1024, 2048 ...
// tokens, times as many documents as keep pairs of tokens below a bound. A pass that has fewer leaves the rest empty.
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "kernels/attention.h"

namespace shoestring::attention::cudnn {

inline constexpr std::int64_t kMostDocuments = 256;                ///< of one ragged pass
inline constexpr std::int64_t kShortest = 512;                     ///< length of the shortest ragged pass
inline constexpr std::int64_t kMostPairs = std::int64_t{1} << 26;  ///< of tokens, of a pass; one document may have more
inline constexpr std::int64_t kWorkspaceBytes = std::int64_t{1} << 30;  ///< aimed at
inline constexpr std::int64_t kMostWorkspace = std::int64_t{4} << 30;   ///< what one group of heads may need

/// Tensors of a graph; a forward graph has the first five.
enum Operand : std::uint8_t { kQ, kK, kV, kO, kStats, kDo, kDq, kDk, kDv, kOperands };

/// From one token to the next and from one head to the next, in elements.
struct Steps {
  std::int64_t token = 0;
  std::int64_t head = 0;
  auto operator<=>(const Steps&) const = default;
};

/// All that the library's plan depends on, but for the device.
struct Graph {
  bool backward = false;
  bool ragged = false;  ///< documents begin at offsets and have lengths; else they follow each other, all as long
  std::int64_t documents = 0;  ///< ragged: at most
  std::int64_t length = 0;     ///< ragged: at most
  std::int64_t heads = 0;
  std::int64_t kv_heads = 0;
  std::int64_t qk_dim = 0;
  std::int64_t v_dim = 0;
  std::array<Steps, kOperands> steps{};
  auto operator<=>(const Graph&) const = default;

  std::int64_t group() const { return heads / kv_heads; }
  /// Pairs of tokens of one head that it has room for.
  std::int64_t pairs() const { return documents * length * length; }
  std::string to_string() const;
};

/// Documents [first, first + count) in one call of the library, whose graph has room for `documents` of `length`.
struct Pass {
  std::int64_t first = 0;
  std::int64_t count = 0;
  bool ragged = false;
  std::int64_t documents = 0;
  std::int64_t length = 0;
  bool operator==(const Pass&) const = default;
};
/// `starts`: the first token of each document, then the end.
std::vector<Pass> passes_of(std::span<const std::int32_t> starts);

/// Groups of heads that a backward pass takes at once: a divisor of `kv_heads`.
std::int64_t groups_at_once(std::span<const Pass> passes, std::int64_t group, std::int64_t kv_heads);

/// The graph of a pass over `groups` groups of heads. Statistics lie in the order that the library is known to take:
/// [tokens, heads] where ragged, [documents, heads, length] else.
Graph graph_of(const AttentionArgs& args, const Pass& pass);
Graph graph_of(const AttentionBackwardArgs& args, const Pass& pass, std::int64_t groups);

/// Why the arguments are not for cuDNN; empty when nothing in them speaks against it. What the library and the device
/// say is asked in attention_cudnn.cpp.
std::string refuses_arguments(const AttentionArgs& args);
std::string refuses_arguments(const AttentionBackwardArgs& args);

/// Scratch that a backward pass needs at most, and a forward pass never more.
std::int64_t scratch_bytes(const AttentionShape& shape);

}  // namespace shoestring::attention::cudnn
