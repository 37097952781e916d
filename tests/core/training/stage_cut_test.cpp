#include "core/training/stage_cut.h"

#include <gtest/gtest.h>

#include <functional>
#include <mutex>
#include <numeric>

#include "kernels/base/random.h"
#include "kernels/base/workers.h"
#include "tests/core/model/small_models.h"
#include "tests/support/ranks.h"

namespace shoestring {
namespace {

using Layers = std::vector<std::int64_t>;

TEST(CutStages, FollowsWhatLayersTake) {
  EXPECT_EQ(cut_stages({{1, 1, 1, 1}, 0}, 2), (Layers{2, 2}));
  EXPECT_EQ(cut_stages({{1, 1, 1, 1}, 2}, 2), (Layers{3, 1}));  // the head is worth two layers
  EXPECT_EQ(cut_stages({{1, 3, 3, 3}, 1}, 2), (Layers{2, 2}));
  EXPECT_EQ(cut_stages({{1, 1, 1, 4, 4}, 0}, 3), (Layers{3, 1, 1}));
  EXPECT_EQ(cut_stages({{1, 1}, 5}, 2), (Layers{2, 0}));  // it stands alone
  EXPECT_EQ(cut_stages({{1, 1, 1}, 0.5}, 1), (Layers{3}));
  EXPECT_THROW(cut_stages({{1, 1}, 1}, 4), Error);
}

// Where one layer alone decides, the others are spread all the same: front stages hold most micro-batches in flight.
TEST(CutStages, OfEquallySlowCutsTheMostEven) {
  EXPECT_EQ(cut_stages({{1, 1, 1, 1, 1, 1}, 4}, 4), (Layers{2, 2, 2, 0}));
}

/// Every cut of `layers` layers, none empty but perhaps the last.
void each_cut(std::int64_t layers, int stages, Layers& cut, const std::function<void(const Layers&)>& visit) {
  if (stages == 1) {
    cut.push_back(layers);
    visit(cut);
    cut.pop_back();
    return;
  }
  for (std::int64_t own = 1; own <= layers; ++own) {
    cut.push_back(own);
    each_cut(layers - own, stages - 1, cut, visit);
    cut.pop_back();
  }
}

TEST(CutStages, NoCutHasAFasterSlowestStage) {
  const Random random(7, Purpose::weight_init);
  for (std::uint64_t trial = 0; trial < 40; ++trial) {
    StageCosts costs{{}, 0.1 * static_cast<double>(random.below(1000 * trial, 90))};
    for (std::uint64_t layer = 0; layer < 9; ++layer) {
      costs.layers.push_back(0.1 * static_cast<double>(1 + random.below(1000 * trial + 1 + layer, 40)));
    }
    for (const int stages : {2, 3, 4}) {
      const Layers chosen = cut_stages(costs, stages);
      EXPECT_EQ(std::accumulate(chosen.begin(), chosen.end(), std::int64_t{0}), 9);
      Layers cut;
      each_cut(9, stages, cut, [&](const Layers& other) {
        EXPECT_LE(slowest_stage(costs, chosen), slowest_stage(costs, other) * (1 + 1e-9));
      });
    }
  }
}

TEST(CutStages, TheTextSaysWhatItIsWorth) {
  const StageCosts costs{{1, 1, 1, 1}, 2};
  EXPECT_EQ(cut_text(costs, {3, 1}, {2, 2}),
            "pipeline cut by measured time: 3 1 layers; its slowest stage takes 1.00 times the mean (1.33 with 2 2)");
}

// What is measured is of this machine and this moment; that all ranks know the same of it, and that layers of a kind
// take the same, is not.
TEST(MeasureStageCosts, AreKnownToAllRanks) {
  TransformerOptions whole{.model = testing::tiled_config(Architecture::deepseek_v3),
                           .precision = testing::policy(PrecisionPolicy::bf16),
                           .run = {24, 2, 1},
                           .own_stages = {}};
  whole.model.layers = 4;
  std::vector<StageCosts> all;
  std::mutex mutex;
  testing::run_ranks(3, [&](Communicator& world) {
    Workers workers(1);
    Stream stream(workers);
    const StageCosts costs = measure_stage_costs(whole, 5, world, stream);
    const std::lock_guard lock(mutex);
    all.push_back(costs);
  });
  const StageCosts& first = all.front();
  ASSERT_EQ(first.layers.size(), 4);
  EXPECT_EQ(whole.model.dense_layers, 1);
  for (const double seconds : first.layers) EXPECT_GT(seconds, 0);
  EXPECT_GT(first.end, 0);
  EXPECT_EQ(first.layers[1], first.layers[3]);
  for (const StageCosts& costs : all) {
    EXPECT_EQ(costs.layers, first.layers);
    EXPECT_EQ(costs.end, first.end);
  }
}

}  // namespace
}  // namespace shoestring
