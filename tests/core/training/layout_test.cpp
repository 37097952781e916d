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
      EXPECT_EQ(layout.stage_count, 1);
      const std::lock_guard lock(mutex);
      places.insert(layout.at.data);
    });
    EXPECT_EQ(places.size(), static_cast<std::size_t>(ranks));
  }
}

TEST(Layout, Prints) {
  EXPECT_EQ(to_string(layout_of(recipe_of(0), 1, 2)), "rank 1 of 2: data 1 of 2, the whole model");
  const Layout folded{.shape = {.data = 4, .pipeline = 2, .expert = 1},
                      .at = {.data = 1, .pipeline = 1, .expert = 0, .replica = 1},
                      .schedule = ScheduleName::zb_v,
                      .stage_count = 4,
                      .stages = {1, 2}};
  EXPECT_EQ(to_string(folded), "rank 5 of 8: data 1 of 4, stage 1+2 of 4 (zb_v)");
}

TEST(Layout, ALaunchThatDoesNotFitIsRefused) {
  EXPECT_EQ(layout_of(recipe_of(2), 0, 2), layout_of(recipe_of(0), 0, 2));
  expect_refused([] { layout_of(recipe_of(4), 0, 2); }, "parallel.data = 4, but the run was launched on 2 ranks");
  expect_refused([] { layout_of(recipe_of(2), 0, 1); }, "launched on 1 rank; launch it with mpirun -n 2");
}

TEST(Layout, AxesThatAreNotAvailableAreRefused) {
  Recipe recipe = recipe_of(0);
  recipe.parallel.pipeline = 2;
  expect_refused([&] { layout_of(recipe, 0, 2); }, "parallel.pipeline = 2");
  recipe.parallel.pipeline = 1;
  recipe.parallel.expert = 2;
  expect_refused([&] { layout_of(recipe, 0, 2); }, "parallel.expert = 2");
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
  expect_refused([&] { groups(0, 3, 4); }, "3 ranks cannot share 4 reduction groups evenly");
  expect_refused([&] { groups(16, 2, 0); }, "phase only: 8 micro-batches per step are fewer than the 16");
}

}  // namespace
}  // namespace shoestring
