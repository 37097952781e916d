#include "kernels/base/file.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include "kernels/base/check.h"
#include "tests/support/temporary_folder.h"

namespace shoestring {
namespace {

namespace fs = std::filesystem;
using testing::TemporaryFolder;
using testing::write_text;

template <class Body>
ExitCode code_of(const Body& body) {
  try {
    body();
  } catch (const Error& error) {
    return error.code();
  }
  return ExitCode::done;
}

/// No further file or folder can be opened while it lives.
class NoDescriptors {
 public:
  NoDescriptors() {
    getrlimit(RLIMIT_NOFILE, &before_);
    const rlimit none{0, before_.rlim_max};
    setrlimit(RLIMIT_NOFILE, &none);
  }
  ~NoDescriptors() { setrlimit(RLIMIT_NOFILE, &before_); }
  NoDescriptors(const NoDescriptors&) = delete;
  NoDescriptors& operator=(const NoDescriptors&) = delete;

 private:
  rlimit before_{};
};

TEST(ListDirectory, NamesEverythingInOrder) {
  const TemporaryFolder folder;
  write_text(folder / "b", "");
  write_text(folder / ".a", "");
  fs::create_directory(folder / "c");
  fs::create_symlink("nowhere", folder / "d");
  const std::vector<fs::path> wanted = {folder / ".a", folder / "b", folder / "c", folder / "d"};
  EXPECT_EQ(list_directory(folder.path()), wanted);
}

TEST(ReplaceFile, WhatAKilledProcessLeftBesideItIsRemovedAndNothingElse) {
  const TemporaryFolder folder;
  replace_file(folder / "a.json", "new");
  for (const char* left : {"a.json.tmp1", "a.json.tmp4194304"}) write_text(folder / left, "ne");
  const std::vector<std::string> others = {"a.json.tmp", "a.json.tmp1.gz", "a.json.tmp_1", "b.json.tmp1"};
  for (const std::string& other : others) write_text(folder / other, "mine");
  fs::create_directory(folder / "a.json.tmp2");
  remove_abandoned(folder / "a.json");
  EXPECT_EQ(list_directory(folder.path()).size(), 2 + others.size()) << "a.json and the folder stay as well";
  for (const std::string& other : others) EXPECT_TRUE(fs::exists(folder / other)) << other;
  remove_abandoned(folder / "absent" / "a.json");
}

TEST(HashFile, CanBeLeftBetweenPieces) {
  const TemporaryFolder folder;
  write_text(folder / "large", std::string(std::size_t{5} << 20, 'x'));
  int pieces = 0;
  const std::string hash = hash_file(folder / "large", [&] { ++pieces; });
  EXPECT_EQ(hash, hash_file(folder / "large"));
  EXPECT_GE(pieces, 2);
  int before = 0;
  EXPECT_EQ(code_of([&] {
              hash_file(folder / "large", [&] {
                ++before;
                fail(ExitCode::preempted, "left; run it again");
              });
            }),
            ExitCode::preempted);
  EXPECT_EQ(before, 1);
}

TEST(ListDirectory, AFailureIsNoEmptyFolder) {
  const TemporaryFolder folder;
  write_text(folder / "file", "");
  EXPECT_EQ(code_of([&] { list_directory(folder / "absent"); }), ExitCode::missing_input);
  EXPECT_EQ(code_of([&] { list_directory(folder / "file"); }), ExitCode::missing_input);
  const NoDescriptors none;
  EXPECT_EQ(code_of([&] { list_directory(folder.path()); }), ExitCode::io);
}

TEST(MakeDirectories, ALinkThatLeadsNowhereIsNoFolderToMoveAway) {
  const testing::TemporaryFolder folder;
  std::filesystem::create_symlink("not-mounted", folder / "runs");
  try {
    make_directories(folder / "runs/r/checkpoints");
    FAIL() << "made behind a dead link";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::missing_input);
    EXPECT_NE(std::string(error.what()).find("runs is a link to not-mounted, which is not there; mount the disk"),
              std::string::npos)
        << error.what();
  }
  make_directories(folder / "not-mounted");
  EXPECT_NO_THROW(make_directories(folder / "runs/r/checkpoints"));
}

TEST(TypeOf, FollowsLinksAndTellsWhatItMayNotSee) {
  const TemporaryFolder folder;
  write_text(folder / "file", "");
  fs::create_symlink("nowhere", folder / "dead");
  fs::create_symlink("file", folder / "link");
  fs::create_symlink("round", folder / "round");
  EXPECT_EQ(type_of(folder / "file"), fs::file_type::regular);
  EXPECT_EQ(type_of(folder / "link"), fs::file_type::regular);
  EXPECT_EQ(type_of(folder.path()), fs::file_type::directory);
  EXPECT_EQ(type_of(folder / "dead"), fs::file_type::not_found);
  EXPECT_EQ(type_of(folder / "file" / "below"), fs::file_type::not_found);
  EXPECT_EQ(code_of([&] { type_of(folder / "round"); }), ExitCode::io);
}

// Caches of models, data versioning and home folders with a quota all put a link where the file is looked for.
TEST(OpenForReading, FollowsLinksToRegularFilesOnly) {
  const TemporaryFolder folder;
  write_text(folder / "blob", "content");
  fs::create_symlink("blob", folder / "link");
  fs::create_symlink("nowhere", folder / "dead");
  fs::create_symlink("/dev/zero", folder / "device");
  EXPECT_EQ(read_file(folder / "link", 100), "content");
  EXPECT_EQ(hash_file(folder / "link"), content_hash("content"));
  EXPECT_EQ(code_of([&] { open_for_reading(folder / "dead"); }), ExitCode::missing_input);
  EXPECT_EQ(code_of([&] { open_for_reading(folder / "device"); }), ExitCode::bad_data);
}

// What a clone without Git LFS holds in a model's place.
TEST(ReadFile, APointerIsNoContent) {
  const TemporaryFolder folder;
  const std::string pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 4241003\n";
  write_text(folder / "tokenizer.json", pointer);
  EXPECT_EQ(code_of([&] { read_file(folder / "tokenizer.json", 1000); }), ExitCode::bad_data);
  write_text(folder / "README", "A " + pointer);
  EXPECT_EQ(read_file(folder / "README", 1000), "A " + pointer);
}

TEST(OpenForReading, AbsentIsMissingAndHinderedIsNot) {
  const TemporaryFolder folder;
  write_text(folder / "file", "");
  EXPECT_EQ(code_of([&] { open_for_reading(folder / "absent"); }), ExitCode::missing_input);
  EXPECT_EQ(code_of([&] { open_for_reading(folder / "file" / "below"); }), ExitCode::missing_input);
  const NoDescriptors none;
  EXPECT_EQ(code_of([&] { open_for_reading(folder / "file"); }), ExitCode::io);
}

}  // namespace
}  // namespace shoestring
