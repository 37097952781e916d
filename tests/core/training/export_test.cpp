#include "core/training/export.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <tuple>

#include "core/training/import_weights.h"
#include "kernels/base/check.h"
#include "kernels/base/workers.h"
#include "tests/core/model/small_models.h"
#include "tests/support/temporary_folder.h"

namespace shoestring::testing {
namespace {

namespace fs = std::filesystem;

/// A small model in a folder, and its export.
class Exported {
 public:
  Exported(Architecture architecture, ExportFormat format, std::int64_t limit = std::int64_t{1} << 30)
      : run(small_config(architecture), policy(PrecisionPolicy::fp32)) {
    std::vector<NamedTensor> tensors;
    for (const Parameter* parameter : run.model.parameters()) {
      for (const ParameterSlice& slice : parameter->slices) {
        const ConstTensorView rows = parameter->value.slice(0, slice.begin, slice.rows);
        tensors.push_back({slice.name, rows.reshaped(slice.shape)});
      }
    }
    fs::create_directories(source());
    write_text(source() / "config.json", write_hugging_face_config(run.model.config(), {.eos_tokens = {3, 4}}));
    write_text(source() / "tokenizer.json", "{}");
    FileWriter file(source() / "model.safetensors");
    write_safetensors(file, tensors);
    file.finish();
    export_folder(ImportFolder(source()), out(), {format, limit}, run.stream);
  }
  fs::path source() const { return folder / "source"; }
  fs::path out() const { return folder / "out"; }

  TemporaryFolder folder;
  SmallRun run;
};

TEST(Export, SinglePrecisionIsTheSameBytes) {
  const Exported exported(Architecture::deepseek_v3, ExportFormat::fp32);
  const ImportFolder source(exported.source());
  const ImportFolder out(exported.out());
  EXPECT_EQ(out.tensors().size(), source.tensors().size() + 2);  // the copies for multi-token prediction
  for (const auto& [name, place] : source.tensors()) {
    EXPECT_TRUE(same_rows(find_rows(source, name, place.entry->shape), find_rows(out, name, place.entry->shape)))
        << name;
  }
  EXPECT_EQ(out.facts().eos_tokens, (std::vector<std::int64_t>{3, 4}));
  EXPECT_EQ(read_text(exported.out() / "tokenizer.json"), "{}");
}

// Once rounded, the numbers stay: the second export has the bytes of the first.
TEST(Export, BrainFloatsRoundOnce) {
  const Exported exported(Architecture::qwen2, ExportFormat::bf16);
  Workers workers(1);
  Stream stream(workers);
  export_folder(ImportFolder(exported.out()), exported.folder / "again", {}, stream);
  EXPECT_EQ(read_text(exported.folder / "again/model.safetensors"), read_text(exported.out() / "model.safetensors"));
  EXPECT_LT(fs::file_size(exported.out() / "model.safetensors"),
            fs::file_size(exported.source() / "model.safetensors"));
}

TEST(Export, BlocksAreReadBackAndOnlyWhereTheyBelong) {
  const Exported exported(Architecture::deepseek_v3, ExportFormat::fp8_block, 20000);
  const ImportFolder out(exported.out());
  EXPECT_TRUE(fs::exists(exported.out() / "model.safetensors.index.json"));
  EXPECT_EQ(out.facts().fp8_block, 128);
  std::int64_t blocks = 0;
  for (const auto& [name, place] : out.tensors()) {
    if (name.ends_with("_scale_inv")) continue;
    EXPECT_EQ(place.entry->dtype == DType::e4m3, quantised_in_blocks(name)) << name;
    if (!quantised_in_blocks(name)) continue;
    ++blocks;
    read_rows(find_rows(out, name, place.entry->shape), [](std::int64_t, std::int64_t, const float*) {});
  }
  EXPECT_GT(blocks, 20);
  EXPECT_EQ(out.find("model.layers.1.mlp.gate.e_score_correction_bias").entry->dtype, DType::f32);
  EXPECT_EQ(out.find("model.layers.3.eh_proj.weight").entry->dtype, DType::bf16);
  SmallRun run(small_config(Architecture::deepseek_v3), policy(PrecisionPolicy::fp32));
  import_weights(plan_import(out, run.model));
}

TEST(Export, ASlashBehindItsNameChangesNothing) {
  const Exported exported(Architecture::llama, ExportFormat::bf16);
  Workers workers(1);
  Stream stream(workers);
  export_folder(ImportFolder(exported.source()), exported.folder / "again/", {}, stream);
  EXPECT_EQ(read_text(exported.folder / "again/model.safetensors"), read_text(exported.out() / "model.safetensors"));
}

TEST(Export, ADotBehindItsNameChangesNothing) {
  const Exported exported(Architecture::llama, ExportFormat::bf16);
  Workers workers(1);
  Stream stream(workers);
  export_folder(ImportFolder(exported.source()), exported.folder / "deep" / "dot" / ".", {}, stream);
  EXPECT_TRUE(fs::exists(exported.folder / "deep" / "dot" / "model.safetensors"));
  EXPECT_EQ(list_directory(exported.folder / "deep").size(), 1u) << "nothing else is left";
}

// Beside the folder to make may stand what is none of ours, also under a name that was once a partial folder's.
TEST(Export, WhatStandsBesideItStays) {
  const Exported exported(Architecture::llama, ExportFormat::bf16);
  Workers workers(1);
  Stream stream(workers);
  const fs::path own = fmt::format("{}.partial{}", (exported.folder / "more").string(), ::getpid());
  for (const fs::path& folder : {exported.folder / "more.partial", own}) write_text(folder / "keep", "precious");
  export_folder(ImportFolder(exported.source()), exported.folder / "more", {}, stream);
  fs::resize_file(exported.source() / "model.safetensors", fs::file_size(exported.source() / "model.safetensors") - 1);
  EXPECT_THROW(export_folder(ImportFolder(exported.source()), exported.folder / "again", {}, stream), Error);
  for (const fs::path& folder : {exported.folder / "more.partial", own})
    EXPECT_EQ(read_text(folder / "keep"), "precious");
  EXPECT_EQ(list_directory(exported.folder.path()).size(), 5u) << "source, out, more and these two";
}

TEST(Export, ADiskWithoutRoomIsSeenBeforeAnythingIsWritten) {
  const Exported exported(Architecture::llama, ExportFormat::bf16);
  Workers workers(1);
  Stream stream(workers);
  std::int64_t written = 0;
  std::int64_t all = 0;
  ExportOptions options{.file_limit_bytes = 8000};
  options.progress = [&](std::int64_t done, std::int64_t of) { std::tie(written, all) = std::tuple(done, of); };
  const auto refused = [&](const DiskRoom& room) -> std::string {
    options.room = room;
    written = 0;
    try {
      export_folder(ImportFolder(exported.source()), exported.folder / "again", options, stream);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::io);
      EXPECT_EQ(written, 0);
      EXPECT_EQ(list_directory(exported.folder.path()).size(), 2u) << "source and out";
      return error.what();
    }
    fs::remove_all(exported.folder / "again");
    return {};
  };
  ASSERT_EQ(refused({}), "");
  ASSERT_GT(all, 16000) << "several files";
  const std::string bytes = refused({.bytes = all});
  EXPECT_NE(bytes.find("MiB are free, the model folder takes "), std::string::npos) << bytes;
  EXPECT_NE(bytes.find("name a place on another disk with --out"), std::string::npos) << bytes;
  EXPECT_EQ(refused({.bytes = all + (std::int64_t{1} << 20)}), "");
  EXPECT_NE(refused({.files = 5}).find("takes 5 more files (df -i)"), std::string::npos);
  EXPECT_EQ(refused({.files = 64}), "");
  EXPECT_NE(refused({.largest_file = 60000}).find("raise `ulimit -f`"), std::string::npos);
  EXPECT_EQ(refused({.largest_file = 80000}), "") << "of the largest file, not of all";
}

/// What an export to `out` would leave if it were killed, made by process 7.
fs::path left_by_a_killed_one(const fs::path& out) {
  const fs::path folder = out.string() + ".partial7";
  write_text(folder / "model.safetensors", "half");
  write_text(folder / "being_filled", "");
  return folder;
}

TEST(Export, WhatAKilledOneLeftIsRemoved) {
  const Exported exported(Architecture::llama, ExportFormat::bf16);
  Workers workers(1);
  Stream stream(workers);
  const fs::path left = left_by_a_killed_one(exported.folder / "more");
  const fs::path of_another = left_by_a_killed_one(exported.folder / "another");
  export_folder(ImportFolder(exported.source()), exported.folder / "more", {}, stream);
  EXPECT_FALSE(fs::exists(left));
  EXPECT_TRUE(fs::exists(of_another));
  EXPECT_FALSE(fs::exists(exported.folder / "more" / "being_filled"));
}

// Its owner lives as long as it holds the mark, perhaps on another machine.
TEST(Export, WhatAnotherOneIsFillingStays) {
  const Exported exported(Architecture::llama, ExportFormat::bf16);
  Workers workers(1);
  Stream stream(workers);
  fs::path under_way;
  const auto during = [&](std::int64_t, std::int64_t) {
    if (!under_way.empty()) return;
    for (const fs::path& entry : list_directory(exported.folder.path())) {
      if (entry.filename().string().starts_with("more.partial")) under_way = entry;
    }
    export_folder(ImportFolder(exported.source()), exported.folder / "more", {}, stream);
    EXPECT_TRUE(fs::exists(under_way / "config.json"));
  };
  // The second to come finds the place taken.
  EXPECT_THROW(export_folder(ImportFolder(exported.source()), exported.folder / "more", {.progress = during}, stream),
               Error);
  EXPECT_FALSE(under_way.empty());
  EXPECT_TRUE(fs::exists(exported.folder / "more" / "model.safetensors"));
  EXPECT_EQ(list_directory(exported.folder.path()).size(), 3u) << "source, out and more";
}

TEST(Export, OneThatIsLeftOnTheWayLeavesNothing) {
  const Exported exported(Architecture::llama, ExportFormat::bf16);
  Workers workers(1);
  Stream stream(workers);
  const auto leave = [](std::int64_t, std::int64_t) { fail(ExitCode::preempted, "left; run it again"); };
  EXPECT_THROW(export_folder(ImportFolder(exported.source()), exported.folder / "more", {.progress = leave}, stream),
               Error);
  EXPECT_EQ(list_directory(exported.folder.path()).size(), 2u) << "source and out";
}

TEST(Export, AFolderThatIsThereStays) {
  const Exported exported(Architecture::llama, ExportFormat::bf16);
  Workers workers(1);
  Stream stream(workers);
  EXPECT_THROW(export_folder(ImportFolder(exported.source()), exported.out(), {}, stream), Error);
  EXPECT_TRUE(fs::exists(exported.out() / "config.json"));
}

}  // namespace
}  // namespace shoestring::testing
