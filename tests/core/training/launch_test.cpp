#include "core/training/launch.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "core/recipe/parse.h"
#include "kernels/base/check.h"
#include "tests/support/ranks.h"
#include "tests/support/temporary_folder.h"

namespace shoestring {
namespace {

template <std::size_t Size>
void put(std::array<char, Size>& to, const std::string& text) {
  to = {};
  std::copy(text.begin(), text.end(), to.begin());
}

RankPlace place(const std::string& host, const std::string& processor = "avx2", const std::string& cores = "a") {
  RankPlace made;
  put(made.host, host);
  put(made.processor, processor);
  put(made.cores, cores);
  made.usable_cores = 2;
  return made;
}

Recipe recipe(const std::string& more = "") {
  return parse_recipe_text(
             "[run]\nname = r\n[budget]\ngpu_hours = 1\n[model]\narchitecture = llama\nlayers = 4\n"
             "hidden = 32\nheads = 1\nfeed_forward = 32\n[data]\ntrain = shards/train\n[schedule]\n"
             "learning_rate = 1e-3\n[phase.p]\nsequence = 16\nmicro_batch = 1\nglobal_batch = 8\nsteps = 2\n" +
                 more,
             "r.recipe")
      .recipe;
}

TEST(Launch, ARankSaysWhereItIs) {
  const RankPlace own = own_place(recipe());
  EXPECT_NE(own.host[0], '\0');
  EXPECT_EQ(std::string(own.program.data()).size(), 32u);
  EXPECT_GE(own.usable_cores, 1);
  EXPECT_STRNE(own.recipe.data(), own_place(recipe("[optimizer]\nclip = 2\n")).recipe.data());
}

TEST(Launch, AMachineThatDoesNotShowTheProgramSaysWhatToMount) {
  const testing::TemporaryFolder empty;
  try {
    program_hash(empty.path());
    FAIL() << "hashed nothing";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::missing_input);
    EXPECT_NE(std::string(error.what()).find("exe: is not there, "), std::string::npos) << error.what();
    EXPECT_NE(std::string(error.what()).find("mount -t proc proc /proc"), std::string::npos) << error.what();
  }
}

TEST(Launch, RanksThatBelongTogetherMayBegin) {
  testing::run_ranks(3, [](Communicator& world) {
    const std::vector<RankPlace> places = checked_places(world, recipe());
    ASSERT_EQ(places.size(), 3u);
    for (const RankPlace& other : places) EXPECT_STREQ(other.program.data(), places[0].program.data());
  });
}

// The same error on every rank, so that none waits for another.
TEST(Launch, AnotherBuildIsNamed) {
  testing::run_ranks(4, [](Communicator& world) {
    RankPlace own = own_place(recipe());
    if (world.rank() >= 2) put(own.program, "another");
    put(own.host, world.rank() == 2 ? "node2" : "node1");
    try {
      check_launch(world, gather_places(world, own), recipe());
      ADD_FAILURE() << "rank " << world.rank() << " begins";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::missing_input);
      EXPECT_NE(std::string(error.what())
                    .find("ranks 2-3 of 4 run another build of this program than rank 0 (host "
                          "node1), first rank 2 (host node2)"),
                std::string::npos)
          << error.what();
    }
  });
}

TEST(Launch, AnotherRecipeIsNamedWithItsKeys) {
  testing::run_ranks(3, [](Communicator& world) {
    const Recipe own = recipe(world.rank() == 1 ? "[optimizer]\nclip = 2\n" : "");
    try {
      checked_places(world, own);
      ADD_FAILURE() << "rank " << world.rank() << " begins";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::bad_recipe);
      const std::string text = error.what();
      EXPECT_NE(text.find("rank 1 of 3 read another recipe than rank 0"), std::string::npos) << text;
      EXPECT_NE(text.find("optimizer.clip = 2, not 1"), std::string::npos) << text;
    }
  });
}

TEST(Launch, UnlikeProcessorsAreNamed) {
  EXPECT_EQ(unlike_processors({place("a"), place("b")}), "");
  const std::string text =
      unlike_processors({place("a"), place("a"), place("b", "avx2 avx512"), place("b", "portable")});
  EXPECT_NE(text.find("ranks 0-1 have: avx2; rank 2 has: avx2 avx512; rank 3 has: portable"), std::string::npos)
      << text;
}

TEST(Launch, TheFirstLinesSayWhatThereIs) {
  Recipe with = recipe();
  with.parallel.pipeline = 2;
  with.parallel.schedule = ScheduleName::zb_h1;
  const std::vector<RankPlace> places = {place("a"), place("b"), place("a"), place("b", "avx2", "b")};
  EXPECT_EQ(launch_text(places, layout_of(with, 0, 4), 1),
            "launch: 4 ranks on 2 hosts: a (ranks 0, 2), b (ranks 1, 3)\n"
            "binding: rank 0 may use 2 cores, up to 3 ranks share the same; 1 thread a rank\n"
            "layout: data 2 x pipeline 2, expert 1; schedule zb_h1, stages of 2 2 layers");
  const std::vector<RankPlace> apart = {place("a"), place("a", "avx2", "b")};
  EXPECT_EQ(launch_text(apart, layout_of(recipe(), 0, 2), 2),
            "launch: 2 ranks on 1 host: a (ranks 0-1)\n"
            "binding: rank 0 may use 2 cores, which no other rank shares; 2 threads a rank\n"
            "layout: data 2 x pipeline 1, expert 1; every rank has the whole model");
}

}  // namespace
}  // namespace shoestring
