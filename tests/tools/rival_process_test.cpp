// Children that play along and children that do not.
#include "tools/bench/rival_process.h"

#include <gtest/gtest.h>

#include <cerrno>

#include "kernels/base/check.h"
#include "kernels/base/file.h"
#include "tests/support/scarce_processes.h"
#include "tests/support/temporary_folder.h"

namespace shoestring {
namespace {

using testing::TemporaryFolder;

ChildCommand shell(const std::string& script, const TemporaryFolder& folder) {
  return {.words = {"/bin/sh", "-c", script}, .environment = {"RIVAL=ours"}, .log = (folder / "log").string()};
}

TEST(RivalProcess, StepsWhenTold) {
  const TemporaryFolder folder;
  RivalProcess rival(shell("echo ready $RIVAL; n=0; while read word; do n=$((n+1)); echo 0.$n; done", folder));
  EXPECT_EQ(rival.name(), "ours");
  EXPECT_EQ(rival.step(), 0.1);
  EXPECT_EQ(rival.step(), 0.2);
}

TEST(RivalProcess, SaysWhyItDoesNotRun) {
  const TemporaryFolder folder;
  try {
    RivalProcess rival(shell("echo no module >&2; exit 1", folder));
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::missing_input);
    EXPECT_NE(std::string(error.what()).find("no module"), std::string::npos) << error.what();
  }
}

// The reason is that of the call, not of the files that name the limits.
TEST(RivalProcess, SaysThatNoProcessCanBeMade) {
  const TemporaryFolder folder;
  std::filesystem::permissions(folder.path(), std::filesystem::perms::all);
  const int code = testing::with_few_processes(0, [&] {
    try {
      return run_child(shell("exit 1", folder));
    } catch (const Error& error) {
      testing::write_text(folder / "error", error.what());
      return static_cast<int>(error.code());
    }
  });
  ASSERT_EQ(code, static_cast<int>(ExitCode::io));
  const std::string text = testing::read_text(folder / "error");
  EXPECT_NE(text.find("cannot start /bin/sh: " + system_reason(EAGAIN) + "; look at `ulimit -u`"), std::string::npos)
      << text;
}

TEST(RivalProcess, ADeadChildIsAnError) {
  const TemporaryFolder folder;
  RivalProcess rival(shell("echo ready once; exit 0", folder));
  EXPECT_THROW(rival.step(), Error);
}

TEST(RunChild, ExitCodeAndPeak) {
  const TemporaryFolder folder;
  EXPECT_EQ(run_child(shell("exit 7", folder)), 7);
  EXPECT_EQ(run_child(shell("kill -9 $$", folder)), 128 + 9);
  long long peak = 0;
  EXPECT_EQ(run_child(shell("sleep 1", folder), peak), 0);
  EXPECT_GT(peak, 100 << 10);
  EXPECT_LT(peak, 64 << 20);
}

}  // namespace
}  // namespace shoestring
