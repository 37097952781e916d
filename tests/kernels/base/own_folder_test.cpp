#include "kernels/base/own_folder.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <memory>

#include "kernels/base/check.h"
#include "tests/support/temporary_folder.h"

namespace shoestring {
namespace {

namespace fs = std::filesystem;
using testing::read_text;
using testing::TemporaryFolder;
using testing::write_text;

TEST(OwnFolder, IsGoneAtTheEndOrHasBecomeAnother) {
  const TemporaryFolder place;
  { write_text(OwnFolder(place / "deep/out.partial").path() / "a", "1"); }
  EXPECT_TRUE(list_directory(place / "deep").empty());
  {
    OwnFolder folder(place / "out.partial");
    write_text(folder.path() / "a", "1");
    folder.become(place / "out");
  }
  EXPECT_EQ(list_directory(place / "out"), std::vector<fs::path>{place / "out/a"});
  EXPECT_EQ(list_directory(place.path()).size(), 2u) << "deep and out";
}

TEST(OwnFolder, StandsBesideOthersThatLive) {
  const TemporaryFolder place;
  const OwnFolder first(place / "x");
  write_text(first.path() / "a", "first");
  const OwnFolder second(place / "x");
  EXPECT_NE(first.path(), second.path());
  EXPECT_EQ(read_text(first.path() / "a"), "first");
}

// Another process fills one, is killed, and the next one comes.
TEST(OwnFolder, RemovesWhatAKilledProcessLeft) {
  const TemporaryFolder place;
  const auto die = [&] {
    auto left = std::make_unique<OwnFolder>(place / "x");
    write_text(left->path() / "a", "half");
    static_cast<void>(left.release());  // as where nothing is destroyed
    ::_exit(0);
  };
  EXPECT_EXIT(die(), ::testing::ExitedWithCode(0), "");
  ASSERT_EQ(list_directory(place.path()).size(), 1u);
  const fs::path left = list_directory(place.path()).front();
  { const OwnFolder of_another_kind(place / "y"); }
  EXPECT_TRUE(fs::exists(left));
  const OwnFolder folder(place / "x");
  EXPECT_FALSE(fs::exists(left));
}

TEST(OwnFolder, LeavesAloneWhatBearsNoMark) {
  const TemporaryFolder place;
  for (const char* name : {"x7", "x", "x7b", "x_"}) write_text(place / name / "keep", "precious");
  write_text(place / "far" / "being_filled", "");
  fs::create_directory_symlink(place / "far", place / "x8");
  { const OwnFolder folder(place / "x"); }
  for (const char* name : {"x7", "x", "x7b", "x_"}) EXPECT_EQ(read_text(place / name / "keep"), "precious") << name;
  EXPECT_TRUE(fs::exists(place / "far" / "being_filled"));
  EXPECT_TRUE(fs::is_symlink(place / "x8"));
}

}  // namespace
}  // namespace shoestring
