// To how many nodes the rows of one token go, where the experts of a layer lie on several: the routing takes
// experts_per_token of them out of expert_topk_groups groups, so where groups are whole on their nodes it limits nodes
// as it limits groups (DeepSeek-V3, arXiv 2412.19437, sections 2.1.2 and 3.2.2).
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <numeric>
#include <vector>

#include "core/model/config.h"

namespace shoestring {

/// Of `nodes`, which hold equal runs of the experts in order, how many hold some of each group. Only where there are
/// experts.
inline std::vector<std::int64_t> nodes_of_groups(const ModelConfig& config, std::int64_t nodes) {
  const std::int64_t size = config.experts / config.expert_groups;
  const auto node_of = [&](std::int64_t expert) { return expert * nodes / config.experts; };
  std::vector<std::int64_t> all;
  for (std::int64_t group = 0; group < config.expert_groups; ++group) {
    all.push_back(node_of((group + 1) * size - 1) - node_of(group * size) + 1);
  }
  return all;
}

/// The most nodes that any token reaches.
inline std::int64_t most_nodes(const ModelConfig& config, std::int64_t nodes) {
  std::vector<std::int64_t> of_groups = nodes_of_groups(config, nodes);
  std::ranges::sort(of_groups, std::greater());
  of_groups.resize(static_cast<std::size_t>(config.expert_topk_groups));
  const std::int64_t reached = std::accumulate(of_groups.begin(), of_groups.end(), std::int64_t{0});
  return std::min({nodes, reached, config.experts_per_token});
}

/// Whether some group lies on several nodes.
inline bool groups_straddle(const ModelConfig& config, std::int64_t nodes) {
  return std::ranges::any_of(nodes_of_groups(config, nodes), [](std::int64_t count) { return count > 1; });
}

}  // namespace shoestring
