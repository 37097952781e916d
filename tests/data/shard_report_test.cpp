#include "data/shard_report.h"

#include <gtest/gtest.h>

#include "tests/data/shard_fixture.h"

namespace shoestring {
namespace {

using namespace shoestring::testing;

TEST(ShardReport, InspectMeasuresDocuments) {
  const ShardFolder folder;
  write_shard(folder / "a.h5", {{5, 6, 7}, {8}, {9, 9, 9, 9, 9}}, 10);
  const ShardReport report = inspect_shard(folder / "a.h5");
  EXPECT_EQ(report.info.documents, 3u);
  EXPECT_EQ(report.info.tokens, 12u);
  EXPECT_EQ(report.shortest_document, 2u);
  EXPECT_EQ(report.longest_document, 6u);
  EXPECT_DOUBLE_EQ(report.mean_document, 4.0);
}

TEST(ShardReport, VerifyCountsEveryBadBlock) {
  const ShardFolder folder;
  const std::string path = folder / "a.h5";
  write_shard(path, Documents(40, std::vector<std::uint32_t>(5000, 7)), 1000);
  std::vector<std::int64_t> told;
  const ShardVerdict before = verify_shard(path, [&](std::int64_t bytes) { told.push_back(bytes); });
  EXPECT_TRUE(before.sound());
  EXPECT_EQ(before.documents_checked, 40u);
  const ShardInfo info = before.info;
  ASSERT_EQ(told.size(), info.token_blocks);
  EXPECT_EQ(told.front(), static_cast<std::int64_t>(info.block_bytes));
  std::vector<char> bytes = testing::file_bytes(path);
  for (const std::uint64_t block : {1, 4}) {
    char& byte = bytes[info.tokens_offset + block * info.block_bytes + 9];
    byte = static_cast<char>(byte ^ 1);
  }
  write_bytes(path, bytes);
  const ShardVerdict verdict = verify_shard(path);
  EXPECT_EQ(verdict.fault_count, 2u);
  EXPECT_EQ(verdict.blocks_checked, info.token_blocks);
  EXPECT_EQ(verdict.faults.at(0).block, 1);
  EXPECT_EQ(verdict.faults.at(1).block, 4);
}

TEST(ShardReport, VerifyJudgesWhatDoesNotOpen) {
  const ShardFolder folder;
  write_bytes(folder / "a.h5", std::vector<char>(100, 'x'));
  const ShardVerdict verdict = verify_shard(folder / "a.h5");
  EXPECT_EQ(verdict.fault_count, 1u);
  EXPECT_EQ(verdict.faults.at(0).block, -1);
  EXPECT_EQ(error_of([&] { verify_shard(folder / "none.h5"); }).code(), ExitCode::missing_input);
}

TEST(ShardReport, ListsShardsInNameOrder) {
  const ShardFolder folder;
  EXPECT_EQ(error_of([&] { list_shards(folder.path()); }).code(), ExitCode::missing_input);
  for (const char* name : {"b.h5", "a.h5", "c.h5.partial", "notes.txt"}) write_bytes(folder / name, {'x'});
  EXPECT_EQ(list_shards(folder.path()), (std::vector<std::string>{folder / "a.h5", folder / "b.h5"}));
  EXPECT_EQ(list_shards(folder / "notes.txt"), std::vector<std::string>{folder / "notes.txt"});
  const Error absent = error_of([&] { list_shards(folder / "none"); });
  EXPECT_EQ(absent.code(), ExitCode::missing_input);
  EXPECT_NE(std::string(absent.what()).find("none: no such shard or folder; build"), std::string::npos);
  const std::string relative = error_of([] { list_shards("shards/none"); }).what();
  EXPECT_EQ(relative.find("shards/none: no such shard or folder in " + std::filesystem::current_path().string()), 0u)
      << "a recipe's paths are those of where it is started: " << relative;
}

}  // namespace
}  // namespace shoestring
