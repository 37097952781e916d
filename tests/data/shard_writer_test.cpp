#include "data/shard_writer.h"

#include <gtest/gtest.h>

#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "data/shard.h"
#include "tests/data/shard_fixture.h"

namespace shoestring {
namespace {

using namespace shoestring::testing;

std::size_t files_in(const ShardFolder& folder) {
  std::size_t count = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder.path())) count += entry.exists() ? 1 : 0;
  return count;
}

TEST(ShardWriter, LeavesOneFile) {
  const ShardFolder folder;
  write_shard(folder / "a.h5", {{5, 6}}, 10);
  EXPECT_EQ(files_in(folder), 1u);
  write_shard(folder / "a.h5", {{5, 6}, {7}}, 10);  // over the old one
  EXPECT_EQ(files_in(folder), 1u);
  EXPECT_EQ(Shard::open(folder / "a.h5").info().documents, 2u);
}

TEST(ShardWriter, WithoutFinishNothingStays) {
  const ShardFolder folder;
  {
    ShardWriter writer(folder / "a.h5", {10, kEnd, "t", ""});
    writer.append(std::vector<std::uint32_t>{5, 6});
    EXPECT_EQ(writer.tokens(), 3u);
    EXPECT_EQ(writer.documents(), 1u);
  }
  EXPECT_EQ(files_in(folder), 0u);
}

TEST(ShardWriter, RefusesBadIdsAndOptions) {
  const ShardFolder folder;
  ShardWriter writer(folder / "a.h5", {10, kEnd, "t", ""});
  EXPECT_EQ(error_of([&] { writer.append(std::vector<std::uint32_t>{3, 10}); }).code(), ExitCode::bad_data);
  EXPECT_EQ(error_of([&] { writer.append(std::vector<std::uint32_t>{3, kEnd}); }).code(), ExitCode::bad_data);
  EXPECT_EQ(error_of([&] { writer.append({}); }).code(), ExitCode::bug);
  EXPECT_EQ(error_of([&] { writer.finish(); }).code(), ExitCode::bug);
  for (const ShardWriterOptions& options : {ShardWriterOptions{0, 0, "t", ""},
                                            {10, 10, "t", ""},
                                            {10, 1, "", ""},
                                            {10, 1, std::string(300, 'x'), ""},
                                            {0x80000000u, 1, "t", ""}}) {
    EXPECT_EQ(error_of([&] { ShardWriter(folder / "b.h5", options); }).code(), ExitCode::usage);
  }
}

TEST(ShardWriter, UnwritableFolderIsNamed) {
  const Error error = error_of([] { ShardWriter("/nonexistent-folder/a.h5", {10, 1, "t", ""}); });
  EXPECT_EQ(error.code(), ExitCode::io);
  EXPECT_NE(std::string(error.what()).find("/nonexistent-folder/a.h5"), std::string::npos);
  EXPECT_NE(std::string(error.what()).find("No such file"), std::string::npos);
}

/// Writes documents to `path` until told to stop, then commits; exit code 0, or the error's.
int write_in_child(const std::string& path, rlim_t most_bytes) {
  ::signal(SIGXFSZ, SIG_IGN);
  const rlimit limit{most_bytes, most_bytes};
  ::setrlimit(RLIMIT_FSIZE, &limit);
  try {
    write_shard(path, Documents(60, std::vector<std::uint32_t>(1000, 7)), 1000);
    return 0;
  } catch (const Error& error) {
    const bool named = std::string(error.what()).find(path) != std::string::npos;
    return named ? static_cast<int>(error.code()) : 1;
  } catch (...) {
    return 2;
  }
}

int exit_code_of(pid_t child) {
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

// A disk that fills at every stage of the writing: the error is Error(io) and nothing stands under the final name.
TEST(ShardWriter, FullDiskLeavesNoShard) {
  const ShardFolder folder;
  const std::string path = folder / "a.h5";
  write_shard(folder / "whole.h5", Documents(60, std::vector<std::uint32_t>(1000, 7)), 1000);
  const auto whole = static_cast<rlim_t>(std::filesystem::file_size(folder / "whole.h5"));
  std::filesystem::remove(folder / "whole.h5");
  int refused = 0;
  for (rlim_t most = 0; most < whole + 3 * 65536; most += whole / 24) {
    const pid_t child = ::fork();
    if (child == 0) ::_exit(write_in_child(path, most));
    const int code = exit_code_of(child);
    if (code == 0) {
      EXPECT_GE(most, whole);
      EXPECT_EQ(Shard::open(path).info().documents, 60u);
      std::filesystem::remove(path);
    } else {
      EXPECT_EQ(code, static_cast<int>(ExitCode::io)) << most << " of " << whole;
      ++refused;
    }
    EXPECT_EQ(files_in(folder), 0u) << most << " of " << whole;
  }
  EXPECT_GE(refused, 20);
}

// Killed at many moments: under the final name there is nothing or a whole shard.
TEST(ShardWriter, KilledWriterLeavesNoHalfShard) {
  const ShardFolder folder;
  const std::string path = folder / "a.h5";
  int nothing = 0;
  for (int moment = 0; moment < 40; ++moment) {
    const pid_t child = ::fork();
    if (child == 0) {
      write_shard(path, Documents(400, std::vector<std::uint32_t>(1000, 7)), 1000);
      ::_exit(0);
    }
    ::usleep(static_cast<useconds_t>(moment * 200));
    ::kill(child, SIGKILL);
    exit_code_of(child);
    if (std::filesystem::exists(path)) {
      const Shard shard = Shard::open(path);
      std::vector<std::int32_t> tokens(shard.info().tokens);
      shard.read(0, tokens.size(), tokens.data());
      EXPECT_EQ(shard.info().documents, 400u);
      std::filesystem::remove(path);
    } else {
      ++nothing;
    }
  }
  EXPECT_GT(nothing, 0);
  write_shard(path, {{5, 6}}, 10);  // leftovers are in nobody's way
  EXPECT_EQ(files_in(folder), 1u);
}

}  // namespace
}  // namespace shoestring
