#include "core/training/layout.h"

#include <gtest/gtest.h>

#include <functional>
#include <mutex>
#include <set>

#include "kernels/base/check.h"
#include "tests/support/ranks.h"

namespace shoestring {
namespace {

Recipe recipe_of(int data, int groups = 0) {
  Recipe recipe;
  recipe.model.layers = 8;
  recipe.parallel.data = data;
  recipe.parallel.reduction_groups = groups;
  PhaseSpec phase;
  phase.name = "only";
  phase.micro_batch = 2;
  phase.global_batch = 16;
  recipe.phases = {phase};
  return recipe;
}

void expect_refused(const std::function<void()>& body, const std::string& text) {
  try {
    body();
    FAIL() << "not refused: " << text;
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::bad_recipe);
    EXPECT_NE(std::string(error.what()).find(text), std::string::npos) << error.what();
  }
}

// Every rank has a place of its own, the same one that the mesh gives it, and holds the whole model.
TEST(Layout, RanksShareTheDataAxis) {
  for (const int ranks : {1, 2, 4}) {
    std::mutex mutex;
    std::set<int> places;
    testing::run_ranks(ranks, [&](Communicator& world) {
      const Layout layout = layout_of(recipe_of(0), world.rank(), world.size());
      Mesh mesh(world, layout.shape);
      EXPECT_EQ(mesh.at(), layout.at);
      EXPECT_EQ(mesh.data().rank(), layout.at.data);
      EXPECT_EQ(mesh.data().size(), ranks);
      EXPECT_EQ(layout.stages, (std::vector<int>{0}));
      EXPECT_EQ(layout.stage_count(), 1);
      const std::lock_guard lock(mutex);
      places.insert(layout.at.data);
    });
    EXPECT_EQ(places.size(), static_cast<std::size_t>(ranks));
  }
}

TEST(Layout, Prints) {
  EXPECT_EQ(to_string(layout_of(recipe_of(0), 1, 2)), "rank 1 of 2: data 1 of 2, the whole model");
  Recipe recipe = recipe_of(0);
  recipe.parallel.pipeline = 2;
  recipe.parallel.schedule = ScheduleName::zb_v;
  const Layout folded = layout_of(recipe, 5, 8);
  EXPECT_EQ(to_string(folded), "rank 5 of 8: data 1 of 4, stage 1+2 of 4 (zb_v)");
}

TEST(Layout, ALaunchThatDoesNotFitIsRefused) {
  EXPECT_EQ(layout_of(recipe_of(2), 0, 2), layout_of(recipe_of(0), 0, 2));
  expect_refused([] { layout_of(recipe_of(4), 0, 2); }, "parallel.data = 4, but the run was launched on 2 ranks");
  expect_refused([] { layout_of(recipe_of(2), 0, 1); }, "launched on 1 rank; launch it with mpirun -n 2");
}

TEST(Layout, ExpertsThatCannotBeSharedOutAreRefused) {
  Recipe recipe = recipe_of(0);
  recipe.parallel.expert = 2;
  expect_refused([&] { layout_of(recipe, 0, 2); }, "parallel.expert = 2, but the model has no experts: leave it out");
  recipe.model.experts = 12;
  EXPECT_EQ(to_string(layout_of(recipe, 3, 4)), "rank 3 of 4: data 3 of 4, the whole model, experts 1 of 2");
  recipe.parallel.expert = 8;
  expect_refused([&] { layout_of(recipe, 0, 8); }, "and must divide both: 1, 2 or 4; layouts of 8 ranks");
  recipe.parallel.expert = 4;
  recipe.parallel.pipeline = 2;
  expect_refused([&] { layout_of(recipe, 0, 4); },
                 "to the 2 ranks of the data axis, and must divide both: 1 or 2; layouts of 4 ranks: pipeline 1 x data "
                 "4 (expert 1, 2 or 4), pipeline 2 x data 2 (expert 1 or 2), pipeline 4 x data 1 (expert 1)");
}

TEST(Layout, RanksThatShareExpertsHaveAsManyMicroBatches) {
  Recipe recipe = recipe_of(0);
  recipe.model.experts = 12;
  recipe.parallel.expert = 2;
  const auto groups = [&](int first) { return reduction_groups(recipe, layout_of(recipe, 0, 2), first); };
  EXPECT_EQ(groups(4), 4);
  expect_refused([&] { groups(6); }, "8 micro-batches per step do not divide evenly over 6 reduction groups");
  expect_refused([&] { groups(6); }, "take a global_batch of 12 or 24");
  recipe.parallel.expert = 1;
  EXPECT_EQ(groups(6), 6);
}

// Each schedule has its own stages on a rank, every stage one rank, and memory for what its lists keep.
TEST(Layout, StagesAreWhereTheScheduleHasThem) {
  for (const ScheduleName name : {ScheduleName::one_f_one_b, ScheduleName::interleaved, ScheduleName::zb_h1,
                                  ScheduleName::zb_v, ScheduleName::dualpipev}) {
    Recipe recipe = recipe_of(0);
    recipe.phases[0].global_batch = 32;
    recipe.parallel.pipeline = 4;
    recipe.parallel.schedule = name;
    const Schedule schedule = make_schedule(layout_of(recipe, 0, 8).schedule, 4, 8);
    const std::vector<int> owners = rank_of_stage(schedule);
    std::int64_t layers = 0;
    for (int rank = 0; rank < 8; rank += 2) {  // of the first data index
      const Layout layout = layout_of(recipe, rank, 8);
      ASSERT_EQ(layout.stage_count(), schedule.stages);
      for (std::size_t i = 0; i < layout.stages.size(); ++i) {
        EXPECT_EQ(owners[static_cast<std::size_t>(layout.stages[i])], layout.at.pipeline) << schedule.name;
        EXPECT_GE(layout.in_flight[i], 1);
        EXPECT_LE(layout.in_flight[i], 8);
        layers += layout.stage_layers[static_cast<std::size_t>(layout.stages[i])];
      }
    }
    EXPECT_EQ(layers, recipe.model.layers);
  }
}

TEST(Layout, OneForwardOneBackwardKeepsFewerTheLaterTheStage) {
  Recipe recipe = recipe_of(1);
  recipe.phases[0].global_batch = 32;
  recipe.parallel.pipeline = 4;
  recipe.parallel.schedule = ScheduleName::one_f_one_b;
  for (int rank = 0; rank < 4; ++rank) EXPECT_EQ(layout_of(recipe, rank, 4).in_flight, std::vector<int>{4 - rank});
}

TEST(Layout, StagesAreCutAsTheRecipeSays) {
  Recipe recipe = recipe_of(0);
  recipe.parallel.pipeline = 2;
  recipe.parallel.schedule = ScheduleName::zb_h1;
  recipe.parallel.stages = {"6", "2"};
  EXPECT_EQ(layout_of(recipe, 0, 2).stage_layers, (std::vector<std::int64_t>{6, 2}));
  recipe.parallel.stages = {"3", "3", "2"};
  expect_refused([&] { layout_of(recipe, 0, 2); },
                 "parallel.stages lists 3 stages, but 2 ranks of the pipeline have 2");
  recipe.parallel.stages = {"measured"};  // until it is
  EXPECT_EQ(layout_of(recipe, 0, 2).stage_layers, (std::vector<std::int64_t>{4, 4}));
  recipe.parallel.schedule = ScheduleName::automatic;
  EXPECT_EQ(layout_of(recipe, 0, 2).stage_layers, (std::vector<std::int64_t>{2, 2, 2, 2}));
}

TEST(Layout, ALaunchThatDoesNotFitIsToldWhatWould) {
  Recipe recipe = recipe_of(0);
  recipe.parallel.pipeline = 4;
  expect_refused([&] { layout_of(recipe, 0, 6); },
                 "layouts of 6 ranks: pipeline 1 x data 6, pipeline 2 x data 3, "
                 "pipeline 3 x data 2, pipeline 6 x data 1");
  recipe.parallel.schedule = ScheduleName::interleaved;
  recipe.parallel.stages_per_rank = 3;
  expect_refused([&] { layout_of(recipe, 0, 4); }, "makes 12 stages, but the model has 8 layers");
}

TEST(Layout, ASchedulesOwnNeedsAreChecked) {
  Recipe recipe = recipe_of(0);  // 8 micro-batches
  recipe.parallel.pipeline = 4;
  recipe.parallel.schedule = ScheduleName::dualpipev;
  EXPECT_EQ(reduction_groups(recipe, layout_of(recipe, 0, 4), 1), 1);
  expect_refused([&] { reduction_groups(recipe, layout_of(recipe, 0, 4), 2); }, "at least 2 micro-batches per rank");
}

// The first attempt decides; later ones may have any number of ranks that divides it.
TEST(Layout, ReductionGroupsAreThoseOfTheFirstAttempt) {
  const auto groups = [](int recipe_says, int ranks, int first) {
    const Recipe recipe = recipe_of(0, recipe_says);
    return reduction_groups(recipe, layout_of(recipe, 0, ranks), first);
  };
  EXPECT_EQ(groups(0, 2, 0), 2);
  EXPECT_EQ(groups(4, 2, 0), 4);
  EXPECT_EQ(groups(0, 2, 8), 8);
  EXPECT_EQ(groups(4, 2, 8), 8);
  expect_refused([&] { groups(0, 3, 4); }, "a data axis of 3 (of 3 ranks, parallel.pipeline = 1) cannot share 4 ");
  expect_refused([&] { groups(16, 2, 0); }, "phase only: 8 micro-batches per step are fewer than the 16");
}

// Begun on a data axis of two: as many ranks go on with a pipeline, and with experts shared by fewer.
TEST(Layout, RanksThatCannotShareTheGroupsHearWhatWould) {
  Recipe recipe = recipe_of(0);
  expect_refused([&] { reduction_groups(recipe, layout_of(recipe, 0, 4), 2); },
                 "launch 1 or 2 ranks, or set parallel.pipeline = 2, or set parallel.pipeline = 4, or begin a new run");
  recipe.model.experts = 8;
  recipe.parallel.expert = 4;
  expect_refused([&] { reduction_groups(recipe, layout_of(recipe, 0, 4), 2); },
                 "begins; set parallel.pipeline = 2 and parallel.expert = 1 or 2, or set parallel.pipeline = 4 and "
                 "parallel.expert = 1, or begin a new run with a parallel.reduction_groups that is a multiple of 4");
}

TEST(Layout, SaysHowManyNodesATokenMayReach) {
  ModelConfig model;
  model.experts = 16;
  model.experts_per_token = 4;
  model.expert_groups = 4;
  model.expert_topk_groups = 2;
  EXPECT_EQ(reach_text(model, 1), "");
  EXPECT_EQ(reach_text(model, 4),
            "experts on 4 nodes, a token's rows on 2 of them at most: it chooses 2 of 4 groups, each whole on a node");
  EXPECT_NE(reach_text(model, 8).find("on 4 of them at most: it chooses 2 of 4 groups, and groups straddle nodes; a "
                                      "model.expert_groups that is a multiple of 8 would"),
            std::string::npos);
  model.expert_topk_groups = 4;
  EXPECT_NE(reach_text(model, 4).find("on 4 of them at most; model.expert_topk_groups below"), std::string::npos);
}

}  // namespace
}  // namespace shoestring
