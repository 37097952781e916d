#include "data/working_file.h"

#include <gtest/gtest.h>

#include <string>

#include "kernels/base/check.h"
#include "tests/support/temporary_folder.h"

namespace shoestring {
namespace {

TEST(WorkingFile, IsWrittenAndReadAnywhere) {
  const testing::TemporaryFolder folder;
  WorkingFile file(folder / "a", WorkingFile::Content::none);
  file.write(3, "def", 3);
  file.write(0, "abc", 3);
  std::string read(4, ' ');
  file.read(1, read.data(), 4);
  EXPECT_EQ(read, "bcde");
  EXPECT_EQ(file.bytes(), 6);
  file.cut(2);
  EXPECT_EQ(testing::read_text(folder / "a"), "ab");
  EXPECT_THROW(file.read(1, read.data(), 2), Error);
  file.remove();
  EXPECT_FALSE(std::filesystem::exists(folder / "a"));
}

TEST(WorkingFile, KeepsWhatWasThereOrNot) {
  const testing::TemporaryFolder folder;
  testing::write_text(folder / "a", "abc");
  EXPECT_EQ(WorkingFile(folder / "a", WorkingFile::Content::kept).bytes(), 3);
  EXPECT_EQ(WorkingFile(folder / "a", WorkingFile::Content::none).bytes(), 0);
}

TEST(WorkingFile, NamesWhatCannotBeOpenedOrWritten) {
  const auto thrown = [](const char* path) -> std::string {
    try {
      WorkingFile(path, WorkingFile::Content::kept).write(0, "x", 1);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::io);
      return error.what();
    }
    return "nothing";
  };
  EXPECT_NE(thrown("/nowhere/a").find("/nowhere/a: cannot be opened"), std::string::npos);
  EXPECT_NE(thrown("/dev/full").find("/dev/full: cannot be written: No space"), std::string::npos);
}

}  // namespace
}  // namespace shoestring
