#include "parallel/mesh.h"

#include <gtest/gtest.h>

#include "tests/support/ranks.h"

namespace shoestring {
namespace {

TEST(Mesh, EveryRankHasItsPlace) {
  const MeshShape shape{.data = 4, .pipeline = 2, .expert = 2};
  for (int rank = 0; rank < shape.ranks(); ++rank) {
    const MeshCoordinates at = coordinates_of(shape, rank);
    EXPECT_EQ(rank_at(shape, at.pipeline, at.data), rank);
    EXPECT_EQ(at.replica * shape.expert + at.expert, at.data);
  }
  EXPECT_EQ(coordinates_of(shape, 7), (MeshCoordinates{.data = 3, .pipeline = 1, .expert = 1, .replica = 1}));
}

TEST(Mesh, AxesJoinTheRightRanks) {
  const MeshShape shape{.data = 4, .pipeline = 2, .expert = 2};
  testing::run_ranks(shape.ranks(), [&](Communicator& world) {
    Mesh mesh(world, shape);
    const auto members = [&](Communicator& axis) {
      std::vector<std::int64_t> all(static_cast<std::size_t>(axis.size()));
      std::int64_t mine = world.rank();
      axis.all_gather(view_of(all.data(), DType::i64, {axis.size()}), view_of(&mine, DType::i64, {1}));
      return all;
    };
    const MeshCoordinates at = mesh.at();
    const std::int64_t stage = at.pipeline * 4;
    EXPECT_EQ(members(mesh.data()), (std::vector<std::int64_t>{stage, stage + 1, stage + 2, stage + 3}));
    EXPECT_EQ(members(mesh.pipeline()), (std::vector<std::int64_t>{at.data, at.data + 4}));
    EXPECT_EQ(members(mesh.expert()), (std::vector<std::int64_t>{stage + at.replica * 2, stage + at.replica * 2 + 1}));
    EXPECT_EQ(members(mesh.replica()), (std::vector<std::int64_t>{stage + at.expert, stage + at.expert + 2}));
    const std::int64_t first = at.replica * 2;
    EXPECT_EQ(members(mesh.model()), (std::vector<std::int64_t>{first, first + 1, first + 4, first + 5}));
    EXPECT_EQ(mesh.data().rank(), at.data);
    EXPECT_EQ(mesh.pipeline().rank(), at.pipeline);
  });
}

TEST(Mesh, WrongShapesAreBadRecipes) {
  const auto code = [](const MeshShape& shape, int ranks) {
    try {
      check_mesh(shape, ranks);
    } catch (const Error& error) {
      return error.code();
    }
    return ExitCode::done;
  };
  EXPECT_EQ(code({.data = 4, .pipeline = 2, .expert = 2}, 8), ExitCode::done);
  EXPECT_EQ(code({.data = 4, .pipeline = 2, .expert = 2}, 4), ExitCode::bad_recipe);
  EXPECT_EQ(code({.data = 4, .pipeline = 2, .expert = 3}, 8), ExitCode::bad_recipe);
  EXPECT_EQ(code({.data = 0, .pipeline = 2, .expert = 1}, 0), ExitCode::bad_recipe);
}

}  // namespace
}  // namespace shoestring
