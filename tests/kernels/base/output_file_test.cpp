#include "kernels/base/output_file.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <thread>

#include "kernels/base/check.h"
#include "tests/support/temporary_folder.h"

namespace shoestring {
namespace {

namespace fs = std::filesystem;
using testing::read_text;
using testing::TemporaryFolder;
using testing::write_text;

template <class Body>
Error error_of(const Body& body) {
  try {
    body();
  } catch (const Error& error) {
    return error;
  }
  return Error(ExitCode::done, "");
}

TEST(OutputFile, ALinkStaysAndWhatItLeadsToIsWritten) {
  const TemporaryFolder folder;
  write_text(folder / "far" / "file", "before");
  fs::create_symlink("far/file", folder / "link");
  fs::create_symlink("link", folder / "second");
  fs::create_symlink("far/new", folder / "to_nothing");
  write_output(folder / "second", "after");
  write_output(folder / "to_nothing", "made");
  EXPECT_EQ(read_text(folder / "far" / "file"), "after");
  EXPECT_EQ(read_text(folder / "far" / "new"), "made");
  for (const char* link : {"link", "second", "to_nothing"}) EXPECT_TRUE(fs::is_symlink(folder / link)) << link;
  OutputStream stream(folder / "second");
  stream.write("one\n");
  EXPECT_EQ(read_text(folder / "far" / "file"), "one\n") << "a piece is there as soon as it is written";
  stream.write("two\n");
  stream.finish();
  EXPECT_EQ(read_text(folder / "far" / "file"), "one\ntwo\n");
}

TEST(OutputFile, APipeStaysAPipeAndHasAllOfIt) {
  const TemporaryFolder folder;
  const fs::path pipe = folder / "pipe";
  ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
  check_output(pipe, "--out");
  const std::string content(300'000, 'x');  // more than a pipe holds
  std::string read;
  std::thread reader([&] { read = read_text(pipe); });
  write_output(pipe, content);
  reader.join();
  EXPECT_EQ(read, content);
  EXPECT_TRUE(fs::is_fifo(pipe));
}

TEST(OutputFile, APipeIsNotWaitedForWithoutEnd) {
  const TemporaryFolder folder;
  const fs::path pipe = folder / "pipe";
  ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
  const Error none = error_of([&] { write_output(pipe, "text", 0.05); });
  EXPECT_EQ(none.code(), ExitCode::io);
  EXPECT_NE(std::string(none.what()).find("start its reader first"), std::string::npos) << none.what();
  const FileHandle idle(::open(pipe.c_str(), O_RDONLY | O_NONBLOCK));
  const Error full = error_of([&] { write_output(pipe, std::string(300'000, 'x'), 0.05); });
  EXPECT_EQ(full.code(), ExitCode::io) << "its reader takes nothing";
}

TEST(OutputFile, AReaderThatLeavesIsAnErrorAndNoSignal) {
  const TemporaryFolder folder;
  const fs::path pipe = folder / "pipe";
  ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
  FileHandle reader(::open(pipe.c_str(), O_RDONLY | O_NONBLOCK));
  OutputStream stream(pipe);
  stream.write("read by nobody");
  reader.close();
  const Error error = error_of([&] { stream.write("more"); });
  EXPECT_EQ(error.code(), ExitCode::io);
  EXPECT_NE(std::string(error.what()).find("its reader is gone"), std::string::npos) << error.what();
}

// A node of the test's own: what must not be replaced could be.
TEST(OutputFile, ADeviceStaysADevice) {
  const TemporaryFolder folder;
  const fs::path full = folder / "full";
  if (::mknod(full.c_str(), S_IFCHR | 0600, 1 << 8 | 7) != 0) GTEST_SKIP() << "may not make devices";
  if (::access(full.c_str(), W_OK) != 0 || !FileHandle(::open(full.c_str(), O_WRONLY)).open()) {
    GTEST_SKIP() << "no devices on this file system";
  }
  EXPECT_EQ(error_of([&] { write_output(full, "text"); }).code(), ExitCode::io) << "it is full";
  EXPECT_EQ(error_of([&] { replace_file(full, "text"); }).code(), ExitCode::io);
  EXPECT_TRUE(fs::is_character_file(full));
}

TEST(OutputFile, WhatIsNoFileIsRefusedBeforeAnyWork) {
  const TemporaryFolder folder;
  const Error directory = error_of([&] { check_output(folder.path(), "--out"); });
  EXPECT_EQ(directory.code(), ExitCode::io);
  EXPECT_NE(std::string(directory.what()).find("is a folder; name a file in it for --out"), std::string::npos)
      << directory.what();
  sockaddr_un address{.sun_family = AF_UNIX, .sun_path = {}};
  const std::string name = (folder / "socket").string();
  std::copy(name.begin(), name.end(), address.sun_path);
  const FileHandle listener(::socket(AF_UNIX, SOCK_STREAM, 0));
  ASSERT_EQ(::bind(listener.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  EXPECT_EQ(error_of([&] { check_output(name, "--out"); }).code(), ExitCode::io);
  EXPECT_EQ(error_of([&] { write_output(name, "text"); }).code(), ExitCode::io);
  EXPECT_EQ(error_of([&] { check_output(folder / "absent/file", "--out"); }).code(), ExitCode::io);
  EXPECT_EQ(error_of([&] { check_output(folder / "file", "--out"); }).code(), ExitCode::done);
  EXPECT_FALSE(fs::exists(folder / "file"));
  EXPECT_EQ(list_directory(folder.path()).size(), 1u) << "nothing is left behind";
}

TEST(OutputFile, OneFileUnderTwoNames) {
  const TemporaryFolder folder;
  write_text(folder / "file", "");
  write_text(folder / "other", "");
  fs::create_symlink("file", folder / "link");
  fs::create_hard_link(folder / "file", folder / "again");
  fs::create_symlink("new", folder / "to_new");
  ASSERT_EQ(::mkfifo((folder / "pipe").c_str(), 0600), 0);
  EXPECT_TRUE(same_file(folder / "file", folder / "link"));
  EXPECT_TRUE(same_file(folder / "file", folder / "again"));
  EXPECT_TRUE(same_file(folder / "new", folder.path() / "." / "new"));
  EXPECT_TRUE(same_file(folder / "new", folder / "to_new"));
  EXPECT_FALSE(same_file(folder / "file", folder / "other"));
  EXPECT_FALSE(same_file(folder / "file", folder / "new"));
  EXPECT_FALSE(same_file(folder / "new", folder / "newer"));
  EXPECT_FALSE(same_file(folder / "pipe", folder / "pipe")) << "both may be written into it";
}

// Under a name where no file can be made, as root either: /dev/stdout is a link to it.
TEST(OutputFile, StandardOutputIsWrittenIntoBehindWhatWasPrinted) {
  const TemporaryFolder folder;
  const fs::path file = folder / "file";
  write_text(file, "");
  std::fflush(stdout);
  const int before = ::dup(STDOUT_FILENO);
  const FileHandle opened(::open(file.c_str(), O_WRONLY | O_CLOEXEC));
  ASSERT_EQ(::dup2(opened.get(), STDOUT_FILENO), STDOUT_FILENO);
  std::fputs("printed ", stdout);
  const Error error = error_of([] { write_output("/proc/self/fd/1", "written"); });
  ::dup2(before, STDOUT_FILENO);
  ::close(before);
  EXPECT_EQ(error.code(), ExitCode::done) << error.what();
  EXPECT_EQ(read_text(file), "printed written");
}

TEST(ReplaceFile, ReplacesALinkAndNothingThatIsNoFile) {
  const TemporaryFolder folder;
  write_text(folder / "file", "kept");
  fs::create_symlink("file", folder / "link");
  replace_file(folder / "link", "own");
  EXPECT_EQ(read_text(folder / "file"), "kept");
  EXPECT_EQ(read_text(folder / "link"), "own");
  ASSERT_EQ(::mkfifo((folder / "pipe").c_str(), 0600), 0);
  EXPECT_EQ(error_of([&] { replace_file(folder / "pipe", "text"); }).code(), ExitCode::io);
  EXPECT_TRUE(fs::is_fifo(folder / "pipe"));
}

}  // namespace
}  // namespace shoestring
