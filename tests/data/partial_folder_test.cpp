#include "data/partial_folder.h"

#include <gtest/gtest.h>

#include <chrono>
#include <future>
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
    const PartialFolder folder(out, "", 0);
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

// Killed between making the folder and its lock, or between the last rename and the removal of the lock.
TEST(PartialFolder, ABuilderMayBeKilledAtItsFirstAndItsLastCall) {
  const testing::TemporaryFolder place;
  fs::create_directory(place / "out.partial");
  {
    PartialFolder folder(place / "out", "state", 0);
    write_text(folder.path() / "x", "1");
    folder.commit();
  }
  write_text(place / "out" / "being_built", "");
  EXPECT_EQ(refusal(place / "out"), ExitCode::usage);
  EXPECT_EQ(std::distance(fs::directory_iterator(place / "out"), {}), 1);
  write_text(place / "out" / "being_built", "of somebody's own");
  EXPECT_EQ(refusal(place / "out"), ExitCode::usage);
  EXPECT_TRUE(fs::exists(place / "out" / "being_built"));
}

TEST(PartialFolder, OneThatIsGoingIsWaitedFor) {
  const testing::TemporaryFolder place;
  for (const bool finishes : {false, true}) {
    auto first = std::make_unique<PartialFolder>(place / "out");
    auto next = std::async(std::launch::async, [&] { PartialFolder(place / "out", "", 3600).commit(); });
    EXPECT_EQ(next.wait_for(std::chrono::milliseconds(100)), std::future_status::timeout);
    if (finishes) first->commit();
    first.reset();
    if (finishes) {
      EXPECT_THROW(next.get(), Error) << "what the first has finished is not built again";
    } else {
      next.get();
    }
    EXPECT_TRUE(fs::is_empty(place / "out"));
    EXPECT_FALSE(fs::exists(place / "out.partial"));
    fs::remove(place / "out");
  }
}

}  // namespace
}  // namespace shoestring
