#include "core/training/checkpoint.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <csignal>
#include <cstring>

#include "kernels/base/check.h"
#include "kernels/base/file.h"
#include "tests/support/temporary_folder.h"

namespace shoestring {
namespace {

namespace fs = std::filesystem;
using testing::read_text;
using testing::TemporaryFolder;
using testing::write_text;

struct Content {
  Tensor weight{DType::f32, {64, 32}};
  Tensor norm{DType::f32, {32}};
  Tensor moment{DType::f32, {64, 32}};
  explicit Content(float value) {
    for (int i = 0; i < 64 * 32; ++i) weight.as<float>()[i] = moment.as<float>()[i] = value + static_cast<float>(i);
  }
  CheckpointContent content() const {
    return {.weights = {{"w", weight}, {"n", norm}},
            .optimizer = {{"exp_avg.w", moment}},
            .files = {{"config.json", "{}"}},
            .state_json = "{\"step\": 1}"};
  }
};

std::vector<std::string> notices;
void notice(const std::string& text) { notices.push_back(text); }

float first_weight(const fs::path& checkpoint) {
  Tensor weight(DType::f32, {64, 32});
  CheckpointReader(checkpoint).read_weight("w", weight);
  return weight.as<float>()[0];
}

TEST(Checkpoint, SavesReadsAndRetains) {
  const TemporaryFolder folder;
  CheckpointStore store(folder / "checkpoints");
  EXPECT_FALSE(store.newest(notice).has_value());
  for (int step = 1; step <= 4; ++step) store.save(step, Content(static_cast<float>(step)).content(), 2, notice);
  ASSERT_EQ(store.all().size(), 2u);
  const fs::path newest = *store.newest(notice);
  EXPECT_EQ(newest.filename(), "step_00000004");
  EXPECT_EQ(first_weight(newest), 4.0f);
  const CheckpointReader reader(newest);
  Tensor moment(DType::f32, {64, 32});
  reader.read_optimizer("exp_avg.w", 0, false, moment);
  EXPECT_EQ(moment.as<float>()[1], 5.0f);
  EXPECT_EQ(reader.state_json(), "{\"step\": 1}");
  EXPECT_EQ(read_text(store.root() / "latest"), "step_00000004\n");
}

/// Optimizer state in parts, under names of the test's own.
fs::path save_parts(CheckpointStore& store, const Tensor& values,
                    const std::vector<std::pair<std::string, std::pair<std::int64_t, std::int64_t>>>& parts) {
  const Content base(1);
  CheckpointContent content = base.content();
  content.optimizer.clear();
  const ConstTensorView flat = values.view().reshaped({values.shape().elements()});
  for (const auto& [name, range] : parts) {
    content.optimizer.push_back({name, flat.slice(0, range.first, range.second - range.first)});
  }
  return store.save(1, content, 1, notice);
}

TEST(Checkpoint, StateInPartsIsReadWholeAndInOtherParts) {
  Tensor values(DType::f32, {6, 4});
  for (int i = 0; i < 24; ++i) values.as<float>()[i] = static_cast<float>(i);
  const TemporaryFolder folder;
  CheckpointStore store(folder / "checkpoints");
  const CheckpointReader reader(
      save_parts(store, values, {{"m.w", {0, 10}}, {"m.w#10", {10, 17}}, {"m.w#17", {17, 24}}}));
  Tensor whole(DType::f32, {6, 4});
  reader.read_optimizer("m.w", 0, false, whole);
  EXPECT_EQ(whole.as<float>()[23], 23.0f);
  Tensor part(DType::f32, {9});
  reader.read_optimizer("m.w", 9, true, part);
  for (int i = 0; i < 9; ++i) EXPECT_EQ(part.as<float>()[i], static_cast<float>(9 + i));
}

TEST(Checkpoint, PartsThatLeaveAGapOrNameNoneAreRefused) {
  const Tensor values(DType::f32, {6, 4});
  Tensor whole(DType::f32, {6, 4});
  const auto read = [&](const std::vector<std::pair<std::string, std::pair<std::int64_t, std::int64_t>>>& parts) {
    const TemporaryFolder folder;
    CheckpointStore store(folder / "checkpoints");
    try {
      CheckpointReader(save_parts(store, values, parts)).read_optimizer("m.w", 0, false, whole);
      return std::string("read");
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::corrupt_checkpoint);
      return std::string(error.what());
    }
  };
  EXPECT_EQ(read({{"m.w#0", {0, 12}}, {"m.w#12", {12, 24}}}), "read");
  EXPECT_NE(read({{"m.w#0", {0, 12}}, {"m.w#13", {13, 24}}}).find("the elements from 12 on are missing"),
            std::string::npos);
  EXPECT_NE(read({{"m.w#0", {0, 12}}}).find("missing"), std::string::npos);
  EXPECT_NE(read({{"m.w#x", {0, 24}}}).find("names no part"), std::string::npos);
  EXPECT_NE(read({{"m.w#99999999999999999999", {0, 24}}}).find("names no part"), std::string::npos);
}

TEST(Checkpoint, SplitsLargeModelsWithAnIndex) {
  const TemporaryFolder folder;
  CheckpointStore store(folder / "checkpoints", /*model_file_limit_bytes=*/8192);
  const fs::path checkpoint = store.save(1, Content(7).content(), 2, notice);
  EXPECT_TRUE(fs::exists(checkpoint / "model-00001-of-00002.safetensors"));
  EXPECT_EQ(checkpoint_damage(checkpoint), "");
  EXPECT_EQ(first_weight(checkpoint), 7.0f);
}

// Any one flipped byte of any file is found, and the run falls back to the checkpoint before.
TEST(Checkpoint, FallsBackWhenAByteIsFlipped) {
  const TemporaryFolder folder;
  CheckpointStore store(folder / "checkpoints");
  store.save(1, Content(1).content(), 3, notice);
  const fs::path damaged = store.save(2, Content(2).content(), 3, notice);
  for (const char* name :
       {"model.safetensors", "training/optimizer.safetensors", "training/state.json", "config.json"}) {
    const std::string sound = read_text(damaged / name);
    for (const std::size_t at : {std::size_t{0}, sound.size() / 2, sound.size() - 1}) {
      std::string bytes = sound;
      bytes[at] = static_cast<char>(bytes[at] ^ 0x10);
      write_text(damaged / name, bytes);
      notices.clear();
      EXPECT_EQ(store.newest(notice)->filename(), "step_00000001");
      ASSERT_EQ(notices.size(), 1u);
      EXPECT_NE(notices[0].find(name), std::string::npos) << notices[0];
    }
    write_text(damaged / name, sound);
  }
  EXPECT_EQ(store.newest(notice)->filename(), "step_00000002");
}

// To be left is no damage: no older one is taken for it.
TEST(Checkpoint, TheLookAtTheNewestCanBeLeft) {
  const TemporaryFolder folder;
  CheckpointStore store(folder / "checkpoints");
  store.save(1, Content(1).content(), 3, notice);
  store.save(2, Content(2).content(), 3, notice);
  notices.clear();
  int looks = 0;
  try {
    store.newest(notice, [&] {
      ++looks;
      fail(ExitCode::preempted, "left as asked; run it again");
    });
    FAIL() << "it went on";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::preempted);
    EXPECT_STREQ(error.what(), "left as asked; run it again");
  }
  EXPECT_EQ(looks, 1);
  EXPECT_TRUE(notices.empty());
}

TEST(Checkpoint, WhatAKilledSaveLeftIsRemoved) {
  const TemporaryFolder folder;
  CheckpointStore store(folder / "checkpoints");
  store.save(1, Content(1).content(), 3, notice);
  write_text(folder / "checkpoints" / "latest.tmp7", "step_0000");
  write_text(folder / "checkpoints" / ".partial_step_00000002" / "model.safetensors", "half");
  store.save(2, Content(2).content(), 3, notice);
  EXPECT_EQ(list_directory(folder / "checkpoints").size(), 3u) << "two steps and latest";
}

// A damaged one that was passed over takes no sound one's place, and never that of the one just committed.
TEST(Checkpoint, RetentionCountsSoundOnes) {
  const TemporaryFolder folder;
  CheckpointStore store(folder / "checkpoints");
  store.save(1, Content(1).content(), 2, notice);
  fs::resize_file(store.save(5, Content(5).content(), 2, notice) / "model.safetensors", 100);
  store.save(2, Content(2).content(), 2, notice);
  ASSERT_EQ(store.all().size(), 2u);
  EXPECT_EQ(store.newest(notice)->filename(), "step_00000002");
  store.save(3, Content(3).content(), 1, notice);
  ASSERT_EQ(store.all().size(), 1u);
  EXPECT_EQ(store.newest(notice)->filename(), "step_00000003");
}

TEST(Checkpoint, AllDamagedIsItsOwnError) {
  const TemporaryFolder folder;
  CheckpointStore store(folder / "checkpoints");
  const fs::path checkpoint = store.save(1, Content(1).content(), 3, notice);
  fs::resize_file(checkpoint / "model.safetensors", 100);
  try {
    store.newest(notice);
    FAIL() << "a cut checkpoint was taken";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::corrupt_checkpoint);
  }
}

TEST(Checkpoint, RefusesManifestsThatReachOutside) {
  const TemporaryFolder folder;
  CheckpointStore store(folder / "checkpoints");
  const fs::path checkpoint = store.save(1, Content(1).content(), 3, notice);
  const std::string manifest = read_text(checkpoint / "manifest.json");
  for (const char* name : {"../../etc/passwd", "/etc/passwd", "training/../x", "a/b", ""}) {
    std::string changed = manifest;
    changed.replace(changed.find("config.json"), std::strlen("config.json"), name);
    write_text(checkpoint / "manifest.json", changed);
    EXPECT_NE(checkpoint_damage(checkpoint), "") << name;
  }
  write_text(checkpoint / "manifest.json", manifest);
  fs::remove(checkpoint / "config.json");
  fs::create_symlink("/etc/hostname", checkpoint / "config.json");
  EXPECT_NE(checkpoint_damage(checkpoint), "");
}

// A full disk, at every size up to what a save needs: the older checkpoint stays, nothing half-written is left.
TEST(Checkpoint, FullDiskLosesNothing) {
  const TemporaryFolder folder;
  CheckpointStore store(folder / "checkpoints");
  store.save(1, Content(1).content(), 1, notice);
  rlimit before{};
  getrlimit(RLIMIT_FSIZE, &before);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  int failures = 0;
  for (rlim_t limit = 0; limit < 8192; limit += 400) {
    const rlimit small{limit, before.rlim_max};
    setrlimit(RLIMIT_FSIZE, &small);
    try {
      store.save(2, Content(2).content(), 1, notice);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::io);
      ++failures;
    }
    setrlimit(RLIMIT_FSIZE, &before);
    if (failures > 0) {
      EXPECT_EQ(store.newest(notice)->filename(), "step_00000001");
      EXPECT_EQ(std::distance(fs::directory_iterator(store.root()), fs::directory_iterator()), 2);
    }
  }
  std::signal(SIGXFSZ, handler);
  EXPECT_GT(failures, 10);
  EXPECT_EQ(store.save(2, Content(2).content(), 1, notice).filename(), "step_00000002");
}

// A checkpoint may lie behind a link; making room removes the link, not what it leads to.
TEST(Checkpoint, LinkedOnesAreSeenAndKept) {
  const TemporaryFolder folder;
  CheckpointStore store(folder / "checkpoints");
  const fs::path checkpoint = store.save(1, Content(1).content(), 3, notice);
  fs::rename(checkpoint, folder / "elsewhere");
  fs::create_directory_symlink(folder / "elsewhere", checkpoint);
  ASSERT_EQ(store.all().size(), 1u);
  EXPECT_EQ(first_weight(*store.newest(notice)), 1.0f);
  store.save(2, Content(2).content(), 1, notice);
  EXPECT_EQ(store.all().size(), 1u);
  EXPECT_EQ(checkpoint_damage(folder / "elsewhere"), "");
}

TEST(Checkpoint, WhatCannotBeSeenIsNotPassedOver) {
  const TemporaryFolder folder;
  CheckpointStore store(folder / "checkpoints");
  store.save(5, Content(5).content(), 3, notice);
  fs::create_directory_symlink("not-mounted", folder / "checkpoints" / "step_00000003");
  EXPECT_EQ(store.newest(notice)->filename(), "step_00000005");  // an older one does not matter
  write_text(folder / "checkpoints" / "step_00000007", "a file");
  notices.clear();
  EXPECT_EQ(store.newest(notice)->filename(), "step_00000005");
  EXPECT_EQ(notices.size(), 1u);
  fs::create_directory_symlink("not-mounted", folder / "checkpoints" / "step_00000009");
  try {
    store.newest(notice);
    FAIL() << "went on from an older one";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::missing_input);
    EXPECT_NE(std::string(error.what()).find("not-mounted"), std::string::npos) << error.what();
  }
  store.save(6, Content(6).content(), 1, notice);  // nor does anybody remove it
  EXPECT_EQ(store.unseen().size(), 3u);
}

TEST(Checkpoint, AFolderThatCannotBeListedIsNotEmpty) {
  const TemporaryFolder folder;
  CheckpointStore store(folder / "checkpoints");
  const fs::path checkpoint = store.save(1, Content(1).content(), 3, notice);
  rlimit before{};
  getrlimit(RLIMIT_NOFILE, &before);
  const rlimit none{0, before.rlim_max};
  setrlimit(RLIMIT_NOFILE, &none);
  EXPECT_THROW(store.all(), Error);
  EXPECT_THROW(store.newest(notice), Error);
  EXPECT_THROW(checkpoint_damage(checkpoint), Error);
  setrlimit(RLIMIT_NOFILE, &before);
  EXPECT_EQ(checkpoint_damage(checkpoint), "");
  fs::resize_file(checkpoint / "model.safetensors", 100);
  EXPECT_NE(checkpoint_damage(checkpoint, Look::sizes), "");
}

TEST(Checkpoint, InterruptedSaveIsSweptAway) {
  const TemporaryFolder folder;
  CheckpointStore store(folder / "checkpoints");
  write_text(folder / "checkpoints" / ".partial_step_00000009" / "model.safetensors", "half");
  store.save(1, Content(1).content(), 1, notice);
  EXPECT_FALSE(fs::exists(folder / "checkpoints" / ".partial_step_00000009"));
}

TEST(Checkpoint, FoldersOfStepsThatNoRunReachesAreNoCheckpoints) {
  const TemporaryFolder folder;
  CheckpointStore store(folder / "checkpoints");
  fs::create_directories(store.root() / "step_9999999999999999999");  // beyond 64 bits
  EXPECT_TRUE(store.all().empty());
  EXPECT_EQ(store.newest(notice), std::nullopt);
  store.save(1, Content(1).content(), 3, notice);
  EXPECT_EQ(store.newest(notice)->filename(), "step_00000001");
}

TEST(Checkpoint, AnIndexOfManyFilesNamesTheFirstThatIsMissing) {
  const TemporaryFolder folder;
  std::string index = "{\"weight_map\":{\"w\":\"a.safetensors\"";
  for (int i = 0; i < 20000; ++i) index += fmt::format(",\"w{0}\":\"m{0}.safetensors\"", i);
  write_text(folder / "model.safetensors.index.json", index + "}}");
  try {
    const CheckpointReader reader(folder.path());
    FAIL() << "files that are not there were read";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::missing_input);
    EXPECT_NE(std::string(error.what()).find("a.safetensors"), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace shoestring
