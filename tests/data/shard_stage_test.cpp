#include "data/shard_stage.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <map>
#include <set>
#include <thread>

#include "data/loader.h"
#include "kernels/base/check.h"
#include "tests/data/held_storage.h"
#include "tests/data/shard_fixture.h"
#include "tests/support/temporary_folder.h"

namespace shoestring {
namespace {

using namespace shoestring::testing;

constexpr std::uint32_t kVocabulary = 1000;

class Stages : public ::testing::TestWithParam<ShardIo> {
 protected:
  Stages() {
    for (int i = 0; i < 4; ++i) {
      write_shard(storage / (std::to_string(i) + ".h5"), make_documents(200, 500, kVocabulary - 10, i + 1),
                  kVocabulary);
    }
  }
  std::vector<Shard> opened() const {
    std::vector<Shard> shards;
    for (int i = 0; i < 4; ++i) {
      shards.push_back(Shard::open(storage / (std::to_string(i) + ".h5"), {GetParam(), true}));
    }
    return shards;
  }
  static std::vector<const Shard*> all_of(const std::vector<Shard>& shards) {
    std::vector<const Shard*> all;
    for (const Shard& shard : shards) all.push_back(&shard);
    return all;
  }
  // The thread is given a minute; what it does takes milliseconds.
  static StageCounts settled(const ShardStage& stage) {
    for (int i = 0; i < 6000 && !stage.counts().settled(); ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    return stage.counts();
  }
  static std::vector<std::int32_t> tokens_of(const Shard& shard) {
    std::vector<std::int32_t> tokens(shard.info().tokens);
    shard.read(0, tokens.size(), tokens.data());
    return tokens;
  }
  static std::set<std::string> copies_in(const std::filesystem::path& folder) {
    std::set<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(folder)) {
      if (entry.path().extension() == ".h5") names.insert(entry.path().filename().string());
    }
    return names;
  }
  ShardFolder storage;
  TemporaryFolder disk;
};

// The storage may go away once the copies stand: nothing is read from it any more.
TEST_P(Stages, CopiesAreReadInsteadOfTheStorage) {
  const std::vector<Shard> before = opened();
  std::vector<std::vector<std::int32_t>> tokens;
  for (const Shard& shard : before) tokens.push_back(tokens_of(shard));
  const std::vector<Shard> shards = opened();
  const ShardStage stage({disk / "stage", 0, GetParam(), {}}, all_of(shards));
  const StageCounts counts = settled(stage);
  EXPECT_EQ(counts.staged, 4) << counts.trouble;
  EXPECT_EQ(counts.trouble, "");
  for (int i = 0; i < 4; ++i) {  // damaged where it stands: the bytes of a copy are others
    std::fstream file(storage / (std::to_string(i) + ".h5"), std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(static_cast<std::streamoff>(shards[static_cast<std::size_t>(i)].info().tokens_offset));
    file.write("\xFF\xFF\xFF\xFF", 4);
  }
  for (std::size_t i = 0; i < shards.size(); ++i) EXPECT_EQ(tokens_of(shards[i]), tokens[i]);
}

TEST_P(Stages, AsManyAsThereIsRoomForTheFirstOnes) {
  const std::vector<Shard> shards = opened();
  const auto bytes = static_cast<std::int64_t>(shards[0].info().file_bytes + shards[1].info().file_bytes);
  const ShardStage stage({disk / "stage", bytes + 100, GetParam(), {}}, all_of(shards));
  const StageCounts counts = settled(stage);
  EXPECT_EQ(counts.staged, 2);
  EXPECT_EQ(counts.too_many, 2);
  EXPECT_EQ(counts.staged_bytes, bytes);
  std::set<std::string> names;
  for (int i = 0; i < 2; ++i) {
    names.insert(fmt::format("{:016x}.h5", shards[static_cast<std::size_t>(i)].info().content_hash));
  }
  EXPECT_EQ(copies_in(disk / "stage"), names);
  // Others make room for those that are asked for now.
  const ShardStage other({disk / "stage", bytes + 100, GetParam(), {}}, {&shards[3], &shards[2]});
  EXPECT_EQ(settled(other).staged, 2) << other.counts().trouble;
  EXPECT_EQ(copies_in(disk / "stage").size(), 2u);
  EXPECT_EQ(tokens_of(shards[0]).size(), shards[0].info().tokens) << "an open copy stays";
}

// Ranks of a node, and a later attempt: each shard is copied once.
TEST_P(Stages, ManyUseOneCopy) {
  std::vector<std::thread> ranks;
  std::atomic<int> staged = 0;
  for (int rank = 0; rank < 4; ++rank) {
    ranks.emplace_back([&] {
      const std::vector<Shard> shards = opened();
      const ShardStage stage({disk / "stage", 0, GetParam(), {}}, all_of(shards));
      staged += static_cast<int>(settled(stage).staged);
      for (const Shard& shard : shards) EXPECT_FALSE(tokens_of(shard).empty());
    });
  }
  for (std::thread& rank : ranks) rank.join();
  EXPECT_EQ(staged, 16);
  EXPECT_EQ(copies_in(disk / "stage").size(), 4u);
  std::map<std::string, std::filesystem::file_time_type> written;
  for (const std::string& name : copies_in(disk / "stage")) {
    written[name] = std::filesystem::last_write_time(disk / "stage" / name);
  }
  const std::vector<Shard> shards = opened();
  const ShardStage again({disk / "stage", 0, GetParam(), {}}, all_of(shards));
  EXPECT_EQ(settled(again).staged, 4);
  for (const auto& [name, time] : written) {
    EXPECT_EQ(std::filesystem::last_write_time(disk / "stage" / name), time) << name;
  }
}

// A copy is checked before it gets its name, and on first touch by whoever finds it.
TEST_P(Stages, DamageIsFound) {
  {
    std::fstream file(storage / "1.h5", std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(static_cast<std::streamoff>(opened()[1].info().tokens_offset + 10));
    file.write("\xFF\xFF\xFF\xFF", 4);
  }
  std::vector<Shard> shards = opened();
  {
    const ShardStage stage({disk / "stage", 0, GetParam(), {}}, all_of(shards));
    const StageCounts counts = settled(stage);
    EXPECT_EQ(counts.staged, 3);
    EXPECT_EQ(counts.failed, 1);
    EXPECT_NE(counts.trouble.find("does not match its checksum"), std::string::npos) << counts.trouble;
  }
  EXPECT_EQ(copies_in(disk / "stage").count(fmt::format("{:016x}.h5", shards[1].info().content_hash)), 0u);
  const std::string copy = fmt::format("{:016x}.h5", shards[0].info().content_hash);
  {
    std::fstream file(disk / "stage" / copy, std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(static_cast<std::streamoff>(shards[0].info().tokens_offset + 10));
    file.write("\xFF\xFF\xFF\xFF", 4);
  }
  shards = opened();
  tokens_of(shards[0]);
  const ShardStage stage({disk / "stage", 0, GetParam(), {}}, {&shards[0]});
  EXPECT_EQ(settled(stage).staged, 1);
  try {
    tokens_of(shards[0]);
    FAIL() << "a damaged copy was read";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::bad_data);
    EXPECT_NE(std::string(error.what()).find(copy), std::string::npos) << error.what();
  }
}

// What a loader hands out does not depend on where its shards are read from, or when that changes.
TEST_P(Stages, BatchesAreTheSame) {
  LoaderOptions options;
  options.sources = {{"all", {(storage / "0.h5")}, 1}, {"rest", {(storage / "1.h5"), (storage / "2.h5")}, 2}};
  options.sequence = 128;
  options.io = GetParam();
  const Loader plain(options);
  EXPECT_FALSE(plain.staged());
  options.stage = StageOptions{.folder = disk / "stage"};
  const Loader staged(options);
  for (std::int64_t i = 0; i < 400; ++i) EXPECT_EQ(staged.fetch({i, 1}).inputs, plain.fetch({i, 1}).inputs) << i;
  EXPECT_EQ(staged.plan(), plain.plan());
  for (int i = 0; i < 6000 && !staged.staged()->settled(); ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  EXPECT_EQ(staged.staged()->staged, 3) << staged.staged()->trouble;
  for (std::int64_t i = 0; i < 400; ++i) EXPECT_EQ(staged.fetch({i, 1}).inputs, plain.fetch({i, 1}).inputs) << i;
}

// A storage that fails for a while is waited for, by whoever reads; one that stays away holds nobody up who ends.
TEST_P(Stages, AStorageThatFailsIsTriedAgain) {
  HeldStorage held;
  held.bytes_per_second = 50e6;
  const ShardOptions options{ShardIo::pread, true, &held, {.seconds = 1e9, .leave = {}, .say = {}}};
  {
    const Shard shard = Shard::open(storage / "0.h5", options);
    held.good = 1;
    held.bad = 9;
    const ShardStage stage({disk / "stage", 0, GetParam(), {}}, {&shard});
    const StageCounts counts = settled(stage);
    EXPECT_EQ(counts.staged, 1) << counts.trouble;
    const auto bytes = static_cast<std::int64_t>(shard.info().file_bytes);
    EXPECT_EQ(counts.copied_bytes, bytes);
    EXPECT_GT(counts.copied_seconds, static_cast<double>(bytes) / 50e6 + 1) << "the pauses count";
    EXPECT_TRUE(shard.has_copy());
  }
  const Shard shard = Shard::open(storage / "1.h5", options);
  held.good = 0;
  held.bad = 1 << 30;
  const ShardStage stage({disk / "stage", 0, GetParam(), {}}, {&shard});
  for (int i = 0; i < 6000 && held.pauses < 20; ++i) std::this_thread::sleep_for(std::chrono::milliseconds(10));
  EXPECT_GE(held.pauses, 20);
}

TEST_P(Stages, CopyingGivesWayButNotForEver) {
  HeldStorage held;
  held.bytes_per_second = 50e6;
  const Shard shard = Shard::open(storage / "0.h5", {ShardIo::pread, true, &held, {}});
  std::atomic<int> asked = 0;
  const ShardStage stage({disk / "stage", 0, GetParam(),
                          [&] {
                            ++asked;
                            return true;
                          }},
                         {&shard});
  EXPECT_EQ(settled(stage).staged, 1);
  EXPECT_GT(asked, 0);
}

TEST_P(Stages, AFolderThatCannotBeIsAnError) {
  write_text(disk / "file", "");
  const std::vector<Shard> shards = opened();
  EXPECT_THROW(ShardStage({disk / "file" / "stage", 0, GetParam(), {}}, all_of(shards)), Error);
}

TEST_P(Stages, AThreadThatCannotBeMadeNamesTheLimits) {
  const std::vector<Shard> shards = opened();
  const ThreadMaker refuse = [](const std::function<void()>&) -> std::thread {
    throw std::system_error(std::make_error_code(std::errc::resource_unavailable_try_again));
  };
  try {
    const ShardStage stage({disk / "stage", 0, GetParam(), {}}, all_of(shards), refuse);
    FAIL() << "made without a thread";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::io);
    EXPECT_NE(std::string(error.what()).find("ulimit -u"), std::string::npos) << error.what();
  }
}

INSTANTIATE_TEST_SUITE_P(Io, Stages, ::testing::Values(ShardIo::mmap, ShardIo::pread),
                         [](const auto& io) { return io.param == ShardIo::mmap ? "mmap" : "pread"; });

}  // namespace
}  // namespace shoestring
