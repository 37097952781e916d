#include "core/training/room.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <limits>
#include <memory>
#include <string>

#include "kernels/base/check.h"
#include "tests/support/ranks.h"
#include "tests/support/temporary_folder.h"

namespace shoestring {
namespace {

constexpr std::int64_t kMiB = 1 << 20;

constexpr CheckpointNeed kNeed{.bytes = 100 * kMiB, .largest_file = 60 * kMiB, .files = 20};

std::string refusal(const DiskRoom& left, bool has_checkpoint) {
  try {
    check_room("runs/r", {left, "", "", ""}, kNeed, has_checkpoint);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::io);
    return error.what();
  }
  return {};
}

TEST(Room, HoldsTwoCheckpointsOrOneBesideThatWhichStandsThere) {
  EXPECT_EQ(refusal({.bytes = 216 * kMiB}, false), "");
  const std::string text = refusal({.bytes = 216 * kMiB - 1}, false);
  for (const char* part : {"runs/r: 216.0 MiB are free, 216.0 are needed", "two checkpoints of 100.0", "run.directory"})
    EXPECT_NE(text.find(part), std::string::npos) << text;
  EXPECT_EQ(refusal({.bytes = 116 * kMiB}, true), "");
  EXPECT_NE(refusal({.bytes = 115 * kMiB}, true).find("another checkpoint of"), std::string::npos);
}

TEST(Room, CountsFilesAndTheLargestOfThem) {
  EXPECT_EQ(refusal({.files = 72}, false), "");
  EXPECT_NE(refusal({.files = 71}, false).find("takes 71 more files (df -i), 72 are needed"), std::string::npos);
  EXPECT_EQ(refusal({.files = 52}, true), "");
  EXPECT_NE(refusal({.files = 51}, true).find("run.directory"), std::string::npos);
  EXPECT_EQ(refusal({.largest_file = 61 * kMiB}, false), "");
  EXPECT_NE(refusal({.largest_file = 60 * kMiB}, true).find("60.1 MiB, the system lets this process write 60.0"),
            std::string::npos);
}

// What every rank that writes may, each by its own limits.
TEST(Room, IsTheLeastThatARankHas) {
  testing::run_ranks(3, [](Communicator& world) {
    const std::array<DiskRoom, 3> rooms = {DiskRoom{.bytes = 900 * kMiB, .files = 70}, DiskRoom{},
                                           DiskRoom{.bytes = 800 * kMiB, .files = 90, .largest_file = kMiB}};
    const LeastRoom least = least_room(world, rooms[static_cast<std::size_t>(world.rank())]);
    EXPECT_EQ(least.room.bytes, 800 * kMiB);
    EXPECT_EQ(least.room.files, 70);
    EXPECT_EQ(least.room.largest_file, kMiB);
    EXPECT_TRUE(least.bytes_of.starts_with("rank 2 (host ")) << least.bytes_of;
    EXPECT_TRUE(least.files_of.starts_with("rank 0 (host ")) << least.files_of;
    try {
      check_room("runs/r", least, kNeed, true);
      ADD_FAILURE() << "there is room";
    } catch (const Error& error) {
      const std::string text = error.what();
      EXPECT_NE(text.find("write 1.0 at most on rank 2 (host "), std::string::npos) << text;
      EXPECT_NE(text.find("raise `ulimit -f` there"), std::string::npos) << text;
    }
  });
  const std::unique_ptr<Communicator> alone = self_communicator();
  EXPECT_EQ(least_room(*alone, {.files = 3}).room.files, 3);
  EXPECT_EQ(least_room(*alone, {.files = 3}).files_of, "");
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
  data.train[0].path = (folder / "emptied").string();
  std::filesystem::create_directory(folder / "emptied");
  EXPECT_NE(refusal().find("emptied: the folder holds no *.h5 shard"), std::string::npos)
      << "what is held out is not looked for there: " << refusal();
  data.train = {{(folder / "train").string(), 1}};
  data.validation[0].path += "/";
  EXPECT_NE(refusal().find("nothing was held out"), std::string::npos) << refusal();
}

DeviceNeed need_of(std::int64_t saved_mib, std::int64_t moments_mib, StateMemory state = StateMemory::device) {
  DeviceNeed need{.device = {DeviceKind::cuda, 0}, .plan = {}, .state = state};
  need.plan.model.parameters = 1024 * kMiB;
  need.plan.model.saved = saved_mib * kMiB;
  need.plan.moments = moments_mib * kMiB;
  return need;
}

TEST(Inputs, OfLaterPhasesAreLookedForToo) {
  const testing::TemporaryFolder folder;
  testing::write_text(folder / "train" / "a.h5", "");
  Recipe recipe;
  recipe.data.train = {{(folder / "train").string(), 1}};
  recipe.phases.resize(2);
  EXPECT_NO_THROW(check_inputs(recipe));
  recipe.phases[1].train = {{(folder / "trian").string(), 1}};
  try {
    check_inputs(recipe);
    FAIL() << "the second phase's path leads nowhere";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::missing_input);
    EXPECT_NE(std::string(error.what()).find("trian"), std::string::npos) << error.what();
  }
  EXPECT_THROW(check_phase_inputs(recipe, 1), Error);
  EXPECT_NO_THROW(check_phase_inputs(recipe, 2)) << "that phase is behind";
}

TEST(Room, ADeviceHoldsTheRunOrTheCheapestChangeIsNamed) {
  const DeviceNeed need = need_of(1024, 2048);
  const std::vector<MemoryChange> changes = {{"phase.NAME.micro_batch = 1", need_of(512, 2048)},
                                             {"precision.moments = bf16", need_of(1024, 1024)},
                                             {"optimizer.state = host", need_of(1024, 2048, StateMemory::host)}};
  int asked = 0;
  const auto refusal = [&](std::int64_t bytes) -> std::string {
    try {
      check_device_memory({bytes, "NVIDIA X has 80 GiB in all"}, need, [&] {
        ++asked;
        return changes;
      });
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::io);
      return error.what();
    }
    return {};
  };
  EXPECT_EQ(refusal(need.bytes()), "");
  EXPECT_EQ(asked, 0);
  const std::string little = refusal(need.bytes() - 1);
  for (const char* part : {"needs 4.25 GiB of cuda:0 and can have 4.25 (NVIDIA X has 80 GiB in all)", "weights 1,",
                           "moments 2,", "phase.NAME.micro_batch = 1 would need 3.75 GiB, and fit"}) {
    EXPECT_NE(little.find(part), std::string::npos) << little;
  }
  const std::string more = refusal(need.bytes() - 600 * kMiB);
  EXPECT_NE(more.find("precision.moments = bf16 would need 3.25"), std::string::npos) << more;
  const std::string most = refusal(need.bytes() - 1500 * kMiB);
  EXPECT_NE(most.find("optimizer.state = host would need"), std::string::npos) << most;
  const std::string hopeless = refusal(1024 * kMiB);
  EXPECT_NE(hopeless.find("a device with more memory"), std::string::npos) << hopeless;
}

TEST(Room, StateInTheHostsMemoryIsNotTheDevices) {
  const std::int64_t there = need_of(0, 2048).bytes(), here = need_of(0, 2048, StateMemory::host).bytes();
  EXPECT_EQ(there - here, (2048 - 64) * kMiB);  // what visits
  EXPECT_EQ(need_of(0, 32, StateMemory::host).bytes(), need_of(0, 32).bytes());
}

TEST(Room, AModelFitsIntoWhatIsLeftOrIsRefused) {
  MemoryPlan plan;
  plan.model.parameters = 1024 * kMiB;
  plan.model.saved = 512 * kMiB;
  plan.moments = 2048 * kMiB;
  const std::int64_t needed = plan.total() + 64 * kMiB;
  EXPECT_NO_THROW(check_memory({}, plan)) << "no limit";
  EXPECT_NO_THROW(check_memory({needed, "`ulimit -v`"}, plan));
  try {
    check_memory({needed - 1, "memory.max of the group"}, plan);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::io);
    for (const char* part : {"needs 3.56 GiB and can have 3.56 (memory.max of the group)", "weights 1,", "moments 2,",
                             "activations 0.5,", "phase.NAME.micro_batch", "parallel.pipeline", "precision.moments"}) {
      EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
    }
  }
}

TEST(Room, EveryShardIsOpenAtOnce) {
  const testing::TemporaryFolder folder;
  for (int shard = 0; shard < 40; ++shard) testing::write_text(folder / ("train/" + std::to_string(shard) + ".h5"), "");
  DataSpec data;
  data.train = {{(folder / "train").string(), 1}};
  struct rlimit before {};
  getrlimit(RLIMIT_NOFILE, &before);
  ASSERT_GE(before.rlim_max, 128u);
  const pid_t child = fork();  // what is lowered here cannot be raised again
  if (child == 0) {
    const struct rlimit soft { 32, 104 };
    setrlimit(RLIMIT_NOFILE, &soft);
    check_open_files(data);  // 40 and 64: exactly what can be had
    getrlimit(RLIMIT_NOFILE, &before);
    const struct rlimit hard { 32, 103 };
    setrlimit(RLIMIT_NOFILE, &hard);
    try {
      check_open_files(data);
    } catch (const Error& error) {
      const std::string text = error.what();
      _exit(before.rlim_cur == 104 && text.find("40 shards") != text.npos && text.find("allows 103") != text.npos ? 0
                                                                                                                  : 2);
    }
    _exit(1);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}

TEST(Room, ThreadsBeyondTheCoresAreSaid) {
  EXPECT_EQ(thread_caveat(0, 2), "");
  EXPECT_EQ(thread_caveat(2, 2), "");
  EXPECT_NE(thread_caveat(16, 2).find("run.threads = 16: this process may use 2 cores"), std::string::npos);
}

TEST(Room, TheSystemIsAsked) {
  const testing::TemporaryFolder folder;
  const DiskRoom left = disk_room(folder.path());
  EXPECT_GT(left.bytes, 0);
  EXPECT_LT(left.bytes, DiskRoom{}.bytes);
  EXPECT_GT(left.files, 0);
  EXPECT_EQ(disk_room("/proc").bytes, 0) << "a file system without room";
  EXPECT_EQ(disk_room("/proc").files, DiskRoom{}.files) << "one that counts no files";
  struct rlimit before {};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  const struct rlimit limited { 12345, before.rlim_max };
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &limited), 0);
  EXPECT_EQ(disk_room(folder.path()).largest_file, 12345);
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &before), 0);
}

}  // namespace
}  // namespace shoestring
