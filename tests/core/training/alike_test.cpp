// Ranks as threads, each with files of its own.
#include "core/training/alike.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "kernels/base/check.h"
#include "kernels/base/file.h"
#include "tests/support/ranks.h"
#include "tests/support/temporary_folder.h"

namespace shoestring {
namespace {

/// What every rank throws; none may go on.
std::vector<Error> thrown_by(int ranks, const std::function<void(Communicator&)>& body) {
  std::vector<Error> errors(static_cast<std::size_t>(ranks), Error(ExitCode::done, ""));
  testing::run_ranks(ranks, [&](Communicator& world) {
    try {
      body(world);
    } catch (const Error& error) {
      errors[static_cast<std::size_t>(world.rank())] = error;
    }
    world.barrier();
  });
  return errors;
}

TEST(Alike, RanksThatReadTheSameGoOn) {
  testing::run_ranks(3, [](Communicator& world) {
    check_alike(world, {{"the tokenizer (" + std::to_string(world.rank()) + "/t.model)", "1f"}, {"data", ""}});
    check_alike(world, {});
  });
}

// The same text on every rank, of the first thing that differs: as rank 0 names it, with the line that differs.
TEST(Alike, WhoReadsSomethingElseIsNamedWithTheLine) {
  const std::vector<Error> errors = thrown_by(4, [](Communicator& world) {
    const bool other = world.rank() == 1 || world.rank() == 3;
    check_alike(world, {{"the tokenizer", "1f"},
                        {"training data (shards)", other ? "seed = 1\nsource.0 = 7\n" : "seed = 1\nsource.0 = 5\n"},
                        {"held-out text", std::to_string(world.rank())}});
  });
  for (const Error& error : errors) {
    EXPECT_EQ(error.code(), ExitCode::bad_data);
    EXPECT_STREQ(error.what(), errors[0].what());
  }
  const std::string text = errors[0].what();
  EXPECT_NE(text.find("training data (shards): ranks 1, 3 of 4 read something else there than rank 0 (host "),
            std::string::npos)
      << text;
  EXPECT_NE(text.find("rank 1 (host "), std::string::npos) << text;
  EXPECT_NE(text.find("has `source.0 = 7`, not `source.0 = 5`"), std::string::npos) << text;
}

TEST(Alike, WhatOneRankLacksDiffers) {
  const std::vector<Error> errors = thrown_by(2, [](Communicator& world) {
    check_alike(world, {{"data", world.rank() == 0 ? "a\nb\n" : "a\n"}});
  });
  EXPECT_NE(std::string(errors[1].what()).find("has nothing, not `b`"), std::string::npos) << errors[1].what();
}

TEST(SharedFolder, IsLeftAsItWas) {
  const testing::TemporaryFolder folder;
  testing::run_ranks(3, [&](Communicator& world) { check_shared_folder(world, folder.path()); });
  EXPECT_TRUE(list_directory(folder.path()).empty());
}

// One folder under each rank's name for it, as a relative path or a disk of its own has it.
TEST(SharedFolder, WhoSeesAnotherIsNamed) {
  const testing::TemporaryFolder shared, own;
  const std::vector<Error> errors = thrown_by(
      3, [&](Communicator& world) { check_shared_folder(world, world.rank() == 2 ? own.path() : shared.path(), 0.1); });
  for (const Error& error : errors) {
    EXPECT_EQ(error.code(), ExitCode::missing_input);
    EXPECT_STREQ(error.what(), errors[0].what());
  }
  const std::string text = errors[0].what();
  EXPECT_NE(text.find(shared.path().string() + ": rank 2 of 3, first rank 2 (host "), std::string::npos) << text;
  EXPECT_NE(text.find("does not see there what rank 0 (host "), std::string::npos) << text;
  EXPECT_NE(text.find("run.directory"), std::string::npos) << text;
  EXPECT_TRUE(list_directory(shared.path()).empty());
}

TEST(SharedFolder, WhatTheFirstRankCannotWriteToIsToldByAll) {
  const testing::TemporaryFolder folder;
  const std::vector<Error> errors =
      thrown_by(2, [&](Communicator& world) { check_shared_folder(world, folder / "absent", 0.1); });
  for (const Error& error : errors) {
    EXPECT_EQ(error.code(), ExitCode::io);
    EXPECT_NE(std::string(error.what()).find("absent"), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace shoestring
