#include "kernels/base/interrupted.h"

#include <gtest/gtest.h>
#include <sys/syscall.h>

#include "kernels/base/check.h"
#include "kernels/base/file.h"
#include "tests/support/temporary_folder.h"

namespace {

int g_interruptions = 0;  // of the fsyncs to come
int g_error = EINTR;
int g_syncs = 0;

}  // namespace

// In place of the C library's, for all of this binary.
extern "C" int fsync(int descriptor) {
  ++g_syncs;
  if (g_interruptions == 0) return static_cast<int>(::syscall(SYS_fsync, descriptor));
  --g_interruptions;
  errno = g_error;
  return -1;
}

namespace shoestring {
namespace {

/// The next `count` fsyncs fail with `error`.
class FailingSyncs {
 public:
  FailingSyncs(int count, int error) {
    g_interruptions = count;
    g_error = error;
    g_syncs = 0;
  }
  ~FailingSyncs() { g_interruptions = 0; }
  FailingSyncs(const FailingSyncs&) = delete;
  FailingSyncs& operator=(const FailingSyncs&) = delete;
};

TEST(NotInterrupted, CallsAgainUntilTheCallIsThrough) {
  int calls = 0;
  const int result = not_interrupted([&] {
    errno = EINTR;
    return ++calls < 4 ? -1 : 7;
  });
  EXPECT_EQ(result, 7);
  EXPECT_EQ(calls, 4);
}

TEST(NotInterrupted, AnotherErrorIsOne) {
  int calls = 0;
  const int result = not_interrupted([&] {
    errno = ++calls < 2 ? EINTR : EIO;
    return -1;
  });
  EXPECT_EQ(result, -1);
  EXPECT_EQ(errno, EIO);
  EXPECT_EQ(calls, 2);
}

TEST(NotInterrupted, ASignalDuringASyncLosesNoFile) {
  const testing::TemporaryFolder folder;
  {
    const FailingSyncs syncs(3, EINTR);
    replace_file(folder / "latest", "step_00000020");
    EXPECT_EQ(g_syncs, 5) << "the file's and the folder's, and three that were interrupted";
  }
  EXPECT_EQ(read_file(folder / "latest", 100), "step_00000020");
}

TEST(NotInterrupted, ADiskThatFailsIsNotAskedAgain) {
  const testing::TemporaryFolder folder;
  const FailingSyncs syncs(1, EIO);
  EXPECT_THROW(replace_file(folder / "latest", "step_00000020"), Error);
  EXPECT_EQ(g_syncs, 1) << "a second fsync may say that all is well, with the bytes lost";
}

}  // namespace
}  // namespace shoestring
