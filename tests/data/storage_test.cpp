#include "data/storage.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "data/loader.h"
#include "data/shard.h"
#include "kernels/base/check.h"
#include "tests/data/held_storage.h"
#include "tests/data/shard_fixture.h"

namespace shoestring {
namespace {

using namespace shoestring::testing;

constexpr std::uint32_t kVocabulary = 1000;

std::vector<std::int32_t> tokens_of(const Shard& shard) {
  std::vector<std::int32_t> tokens(shard.info().tokens);
  shard.read(0, tokens.size(), tokens.data());
  return tokens;
}

class StorageTest : public ::testing::Test {
 protected:
  StorageTest() { write_shard(path, make_documents(200, 500, kVocabulary - 10, 1), kVocabulary); }
  ShardOptions options(double patience_seconds) {
    return {
        ShardIo::pread,
        true,
        &storage,
        {.seconds = patience_seconds, .leave = {}, .say = [this](const std::string& line) { said.push_back(line); }}};
  }
  ShardFolder folder;
  const std::string path = folder / "a.h5";
  HeldStorage storage;
  std::vector<std::string> said;
};

TEST_F(StorageTest, WaitsNoLongerThanABudgetLeaves) {
  StoragePatience patience = options(30).patience;
  patience.left = [this] { return 2 - storage.seconds(); };
  StorageWait wait(storage, patience, path);
  const Error error = error_of([&] {
    while (true) wait.failed(ESTALE);
  });
  EXPECT_EQ(error.code(), ExitCode::preempted);
  for (const std::string& part : {path, std::string("the budget leaves no time"), std::string("same command again")}) {
    EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
  }
  EXPECT_NEAR(storage.seconds(), 2, 1e-6);
}

TEST_F(StorageTest, WaitsLongerEachTimeAndNotForEver) {
  const StoragePatience patience = options(30).patience;
  StorageWait wait(storage, patience, path);
  std::vector<double> pauses;
  const Error error = error_of([&] {
    while (true) {
      const double before = storage.seconds();
      wait.failed(ESTALE);
      pauses.push_back(storage.seconds() - before);
    }
  });
  EXPECT_EQ(error.code(), ExitCode::preempted);
  EXPECT_NE(std::string(error.what()).find(path), std::string::npos) << error.what();
  EXPECT_NE(std::string(error.what()).find("run the same command again"), std::string::npos) << error.what();
  ASSERT_GE(pauses.size(), 8u);
  EXPECT_NEAR(pauses[0], 0.1, 1e-6);
  for (std::size_t i = 1; i + 1 < pauses.size(); ++i) EXPECT_GT(pauses[i], pauses[i - 1]) << i;
  EXPECT_NEAR(storage.seconds(), 30, 1e-6);
  ASSERT_GE(said.size(), 2u);
  EXPECT_LT(said.size(), pauses.size()) << "short pauses are not told one by one";
  EXPECT_NE(said[0].find(path), std::string::npos) << said[0];
}

TEST_F(StorageTest, WhatWaitingCannotMendIsNotWaitedFor) {
  const StoragePatience patience = options(30).patience;
  EXPECT_EQ(error_of([&] { StorageWait(storage, patience, path).failed(EBADF); }).code(), ExitCode::io);
  const StoragePatience none;
  EXPECT_EQ(error_of([&] { StorageWait(storage, none, path).failed(EIO); }).code(), ExitCode::io);
  EXPECT_EQ(storage.pauses, 0);
}

TEST_F(StorageTest, LeavesAWaitWhenAsked) {
  StoragePatience patience = options(1000).patience;
  int asked = 0;
  patience.leave = [&] { return ++asked == 30; };
  StorageWait wait(storage, patience, path);
  EXPECT_EQ(error_of([&] {
              while (true) wait.failed(EIO);
            }).code(),
            ExitCode::preempted);
  EXPECT_LE(storage.seconds(), 3);  // asked ten times a second
}

TEST_F(StorageTest, AShardIsReadOnWhenItsStorageIsBack) {
  const std::vector<std::int32_t> tokens = tokens_of(Shard::open(path));
  const Shard shard = Shard::open(path, options(60));
  const int opens = storage.opens;
  storage.error = ESTALE;
  storage.good = 0;
  storage.bad = 4;
  EXPECT_EQ(tokens_of(shard), tokens);
  EXPECT_GT(storage.opens, opens) << "a file that a server has lost is opened anew";
  ASSERT_EQ(said.size(), 2u);
  EXPECT_NE(said[1].find("is read again"), std::string::npos) << said[1];
  storage.good = 0;
  storage.bad = 1 << 20;
  EXPECT_EQ(error_of([&] { tokens_of(shard); }).code(), ExitCode::preempted);
  storage.bad = 0;
  EXPECT_EQ(tokens_of(shard), tokens);
  const Shard impatient = Shard::open(path, options(0));
  storage.good = 0;
  storage.bad = 1;
  EXPECT_EQ(error_of([&] { tokens_of(impatient); }).code(), ExitCode::io);
}

TEST_F(StorageTest, AnotherFileUnderTheNameIsNotReadOn) {
  const Shard shard = Shard::open(path, options(60));
  write_shard(folder / "b.h5", make_documents(200, 500, kVocabulary - 10, 2), kVocabulary);
  std::filesystem::rename(folder / "b.h5", path);
  storage.good = 0;
  storage.bad = 1;
  const Error error = error_of([&] { tokens_of(shard); });
  EXPECT_EQ(error.code(), ExitCode::preempted);
  EXPECT_NE(std::string(error.what()).find("another file"), std::string::npos) << error.what();
}

// A map of it would end the process where a read can wait.
// A page that is gone raises SIGBUS under a map; reading says why.
TEST_F(StorageTest, AFileThatIsCutWhileOpenIsAnErrorWithItsPlace) {
  const std::vector<char> whole = testing::file_bytes(path);
  for (const ShardIo io : {ShardIo::mmap, ShardIo::pread}) {
    for (const bool verify : {true, false}) {
      const Shard shard = Shard::open(path, {io, verify});
      std::filesystem::resize_file(path, shard.info().tokens_offset + 4096);
      const Error error = error_of([&] { tokens_of(shard); });
      EXPECT_EQ(error.code(), ExitCode::bad_data);
      const std::string text = error.what();
      EXPECT_NE(text.find(path), std::string::npos) << text;
      EXPECT_NE(text.find(fmt::format("byte {}", shard.info().tokens_offset + 4096)), std::string::npos) << text;
      EXPECT_NE(text.find("cut while open"), std::string::npos) << text;
      testing::write_bytes(path, whole);
    }
  }
}

TEST_F(StorageTest, AMapThatIsLostIsReadOnOrLeft) {
  const std::vector<std::int32_t> expected = tokens_of(Shard::open(path));
  const std::vector<char> whole = testing::file_bytes(path);
  const auto then = std::filesystem::last_write_time(path);
  for (const double patience : {0.0, 5.0, 1000.0}) {
    ShardOptions mapped = options(patience);
    mapped.io = ShardIo::mmap;
    const Shard shard = Shard::open(path, mapped);
    std::filesystem::resize_file(path, 4096);
    said.clear();
    storage.good = 0;
    storage.bad = patience == 1000 ? 3 : 1 << 20;
    storage.on_pause = [&] {  // the disk is back, and the file as it was
      testing::write_bytes(path, whole);
      std::filesystem::last_write_time(path, then);
    };
    if (patience == 1000) {
      EXPECT_EQ(tokens_of(shard), expected);
      EXPECT_EQ(tokens_of(shard), expected);
      ASSERT_FALSE(said.empty());
      EXPECT_NE(said[0].find(path + ": byte"), std::string::npos) << said[0];
    } else {
      EXPECT_EQ(error_of([&] { tokens_of(shard); }).code(), patience > 0 ? ExitCode::preempted : ExitCode::io);
    }
    storage.good = 1 << 30;
    storage.on_pause();
  }
}

TEST_F(StorageTest, WhatLiesBehindANetworkIsNotMapped) {
  ShardOptions mapped = options(60);
  mapped.io = ShardIo::mmap;
  const Shard near = Shard::open(path, mapped);
  EXPECT_EQ(storage.reads, 0);
  storage.lies_far = true;
  const Shard far = Shard::open(path, mapped);
  storage.good = 0;
  storage.bad = 3;
  EXPECT_EQ(tokens_of(far), tokens_of(near));
  EXPECT_GT(storage.reads, 3);
}

TEST_F(StorageTest, NoFetchWaitsForAConsumerThatIsGone) {
  LoaderOptions loading;
  loading.sources = {{"a", {path}, 1}};
  loading.sequence = 128;
  loading.io = ShardIo::pread;
  loading.storage = &storage;
  loading.patience = options(1e9).patience;
  const Loader loader(loading);
  storage.on_pause = [&] { loader.stop_waiting(); };
  storage.good = 0;
  storage.bad = 1 << 20;
  EXPECT_EQ(error_of([&] { loader.fetch({0, 1}); }).code(), ExitCode::preempted);
  EXPECT_LE(storage.pauses, 2);
}

}  // namespace
}  // namespace shoestring
