#include "kernels/base/append.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <csignal>

#include "kernels/base/check.h"
#include "kernels/base/file.h"
#include "tests/support/temporary_folder.h"

namespace shoestring {
namespace {

using namespace shoestring::testing;

TEST(Append, TakesBackTheLineThatDidNotFit) {
  const TemporaryFolder folder;
  const std::filesystem::path path = folder / "lines";
  const FileHandle file(::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644));
  append(file.get(), path, "first\n");
  struct rlimit before {};
  getrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, SIG_IGN);
  const struct rlimit ten { 10, before.rlim_max };
  setrlimit(RLIMIT_FSIZE, &ten);  // four bytes of the next line fit
  std::string text;
  try {
    append(file.get(), path, "second\n");
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::io);
    text = error.what();
  }
  setrlimit(RLIMIT_FSIZE, &before);
  EXPECT_NE(text.find("lines: cannot write to it: File too large"), std::string::npos) << text;
  EXPECT_EQ(read_text(path), "first\n");
  append(file.get(), path, "third\n");
  EXPECT_EQ(read_text(path), "first\nthird\n");
}

TEST(Append, NamesTheFileThatCannotBeWritten) {
  try {
    append(-1, "some/file", "x");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(std::string(error.what()), "some/file: cannot write to it: Bad file descriptor");
  }
}

}  // namespace
}  // namespace shoestring
