#include "core/training/room.h"

#include <gtest/gtest.h>

#include <limits>
#include <string>

#include "kernels/base/check.h"
#include "tests/support/temporary_folder.h"

namespace shoestring {
namespace {

constexpr std::int64_t kMiB = 1 << 20;

std::string refusal(std::int64_t free, bool has_checkpoint) {
  try {
    check_room("runs/r", free, 100 * kMiB, has_checkpoint);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::io);
    return error.what();
  }
  return {};
}

TEST(Room, HoldsTwoCheckpointsOrOneBesideThatWhichStandsThere) {
  EXPECT_EQ(refusal(216 * kMiB, false), "");
  const std::string text = refusal(216 * kMiB - 1, false);
  for (const char* part : {"runs/r: 216.0 MiB are free, 216.0 are needed", "two checkpoints of 100.0", "run.directory"})
    EXPECT_NE(text.find(part), std::string::npos) << text;
  EXPECT_EQ(refusal(116 * kMiB, true), "");
  EXPECT_NE(refusal(115 * kMiB, true).find("another checkpoint of"), std::string::npos);
}

TEST(Inputs, AreThereBeforeAnAttemptIs) {
  const testing::TemporaryFolder folder;
  testing::write_text(folder / "train" / "a.h5", "");
  DataSpec data;
  data.train = {{(folder / "train").string(), 1}};
  EXPECT_NO_THROW(check_inputs(data));
  std::filesystem::create_directory(folder / "validation");
  data.validation = {{(folder / "validation").string(), 1}};
  const auto refusal = [&]() -> std::string {
    try {
      check_inputs(data);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::missing_input);
      return error.what();
    }
    return {};
  };
  EXPECT_NE(refusal().find("holds no *.h5 shard"), std::string::npos) << refusal();
  testing::write_text(folder / "corpus.json", "{}");  // what `data build` leaves beside the splits
  EXPECT_NE(refusal().find("nothing was held out when these shards were built"), std::string::npos) << refusal();
  data.validation[0].path += "/";
  EXPECT_NE(refusal().find("nothing was held out"), std::string::npos) << refusal();
}

TEST(Room, TheSystemIsAsked) {
  const testing::TemporaryFolder folder;
  EXPECT_GT(free_bytes(folder.path()), 0);
  EXPECT_LT(free_bytes(folder.path()), std::numeric_limits<std::int64_t>::max());
  EXPECT_EQ(free_bytes("/proc"), 0) << "a file system without room";
}

}  // namespace
}  // namespace shoestring
