#include "kernels/base/presence.h"

#include <gtest/gtest.h>

#include "kernels/base/check.h"
#include "tests/support/temporary_folder.h"

namespace shoestring {
namespace {

namespace fs = std::filesystem;
using testing::TemporaryFolder;
using testing::write_text;

TEST(IsPresent, ALinkThatLeadsNowhereIsNotAbsent) {
  const TemporaryFolder folder;
  write_text(folder / "file", "");
  fs::create_symlink("file", folder / "link");
  fs::create_symlink("nowhere", folder / "dead");
  EXPECT_TRUE(is_present(folder / "file"));
  EXPECT_TRUE(is_present(folder / "link"));
  EXPECT_FALSE(is_present(folder / "absent"));
  try {
    is_present(folder / "dead");
    FAIL() << "counts as absent";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::missing_input);
    EXPECT_NE(std::string(error.what()).find("dead: is a link to nowhere"), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace shoestring
