#include "data/partial_folder.h"

#include <gtest/gtest.h>

#include <optional>

#include "kernels/base/check.h"
#include "tests/support/temporary_folder.h"

namespace shoestring {
namespace {

namespace fs = std::filesystem;
using testing::read_text;
using testing::write_text;

ExitCode refusal(const fs::path& out) {
  try {
    const PartialFolder folder(out);
  } catch (const Error& error) {
    return error.code();
  }
  return ExitCode::done;
}

TEST(PartialFolder, AppearsWhenComplete) {
  const testing::TemporaryFolder place;
  {
    PartialFolder folder(place / "out/");  // as a shell completes it
    write_text(folder.path() / "x", "1");
    EXPECT_FALSE(fs::exists(place / "out"));
    folder.commit();
  }
  EXPECT_EQ(read_text(place / "out" / "x"), "1");
  EXPECT_EQ(std::distance(fs::directory_iterator(place / "out"), {}), 1);
  EXPECT_FALSE(fs::exists(place / "out.partial"));
  EXPECT_EQ(refusal(place / "out"), ExitCode::usage);
}

TEST(PartialFolder, LeavesNothingWithoutCommit) {
  const testing::TemporaryFolder place;
  { write_text(PartialFolder(place / "out").path() / "x", "1"); }
  EXPECT_TRUE(fs::is_empty(place.path()));
}

TEST(PartialFolder, ClearsWhatAKilledBuildLeftAndNothingElse) {
  const testing::TemporaryFolder place;
  write_text(place / "out.partial" / "precious", "1");
  EXPECT_EQ(refusal(place / "out"), ExitCode::usage);
  EXPECT_EQ(read_text(place / "out.partial" / "precious"), "1");
  write_text(place / "out.partial" / "being_built", "");
  PartialFolder folder(place / "out");
  EXPECT_FALSE(fs::exists(place / "out.partial" / "precious"));
}

TEST(PartialFolder, KeepsWhatCanBeGoneOnWith) {
  const testing::TemporaryFolder place;
  {
    PartialFolder folder(place / "out", "state");
    write_text(folder.path() / "state", "1");
    write_text(folder.path() / "half", "2");
    folder.keep();
  }
  {
    PartialFolder folder(place / "out", "state");
    EXPECT_EQ(read_text(folder.path() / "half"), "2");
    folder.keep();
  }
  PartialFolder other(place / "out", "another");
  EXPECT_FALSE(fs::exists(other.path() / "half"));
}

TEST(PartialFolder, OneAtATime) {
  const testing::TemporaryFolder place;
  PartialFolder first(place / "out");
  write_text(first.path() / "x", "1");
  EXPECT_EQ(refusal(place / "out"), ExitCode::io);
  first.commit();
  EXPECT_EQ(read_text(place / "out" / "x"), "1");
}

}  // namespace
}  // namespace shoestring
