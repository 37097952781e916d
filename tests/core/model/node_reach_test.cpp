#include "core/model/node_reach.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "kernels/base/workers.h"
#include "kernels/router.h"
#include "tests/core/model/small_models.h"
#include "tests/support/fill.h"

namespace shoestring::testing {
namespace {

// Of routers with every limit over every placement no token goes to more nodes than it says; where groups are whole on
// their nodes it says as many nodes as groups.
TEST(NodeReach, TokensReachNoMoreNodesThanItSays) {
  constexpr std::int64_t kTokens = 200;
  Workers workers(1);
  Stream stream(workers);
  const Tensor logits = heavy_tailed(DType::f32, {kTokens, 16}, 3);
  ModelConfig config = small_config(Architecture::deepseek_v3);
  config.experts = 16;
  config.experts_per_token = 4;
  for (const std::int64_t groups : {1, 2, 4, 8}) {
    for (std::int64_t chosen = 1; chosen <= groups; ++chosen) {
      config.expert_groups = groups;
      config.expert_topk_groups = chosen;
      if (16 / groups * chosen < config.experts_per_token) continue;
      Tensor indices(DType::i32, {kTokens, 4});
      Tensor weights(DType::f32, {kTokens, 4});
      Tensor scores(DType::f32, {kTokens, 16});
      router_forward({.indices = indices,
                      .weights = weights,
                      .scores = scores,
                      .logits = logits,
                      .kind = RouterKind::sigmoid,
                      .groups = groups,
                      .topk_groups = chosen,
                      .stream = stream});
      for (const std::int64_t nodes : {1, 2, 4, 8, 16}) {
        SCOPED_TRACE(fmt::format("{} of {} groups over {} nodes", chosen, groups, nodes));
        std::size_t most = 0;
        for (std::int64_t token = 0; token < kTokens; ++token) {
          std::set<std::int64_t> reached;
          for (std::int64_t slot = 0; slot < 4; ++slot) {
            reached.insert(indices.as<std::int32_t>()[token * 4 + slot] * nodes / 16);
          }
          most = std::max(most, reached.size());
        }
        EXPECT_LE(most, most_nodes(config, nodes));
        EXPECT_EQ(groups_straddle(config, nodes), groups < nodes);
        if (groups >= nodes) {
          EXPECT_EQ(most_nodes(config, nodes), std::min({chosen, nodes, std::int64_t{4}}));
        }
      }
    }
  }
}

}  // namespace
}  // namespace shoestring::testing
