#include "core/training/readers.h"

#include <gtest/gtest.h>

#include <map>

#include "kernels/base/file.h"
#include "tests/core/model/small_models.h"
#include "tests/support/temporary_folder.h"

namespace shoestring::testing {
namespace {

/// The verdicts on a small model whose config.json has been changed.
std::map<std::string, ReaderVerdict> verdicts(Architecture architecture, const std::string& from,
                                              const std::string& to) {
  const TemporaryFolder folder;
  SmallRun run(small_config(architecture), policy(PrecisionPolicy::fp32));
  std::vector<NamedTensor> tensors;
  for (const Parameter* parameter : run.model.parameters()) {
    for (const ParameterSlice& slice : parameter->slices) {
      tensors.push_back({slice.name, parameter->value.slice(0, slice.begin, slice.rows).reshaped(slice.shape)});
    }
  }
  FileWriter file(folder / "model.safetensors");
  write_safetensors(file, tensors);
  file.finish();
  std::string config = write_hugging_face_config(run.model.config(), {});
  const std::size_t at = config.find(from);
  EXPECT_NE(at, std::string::npos);
  write_text(folder / "config.json", config.replace(at, from.size(), to));
  write_text(folder / "tokenizer.model", "x");
  std::map<std::string, ReaderVerdict> found;
  for (ReaderVerdict& verdict : reader_verdicts(ImportFolder(folder.path()))) {
    const std::string name = verdict.reader;
    found.emplace(name, std::move(verdict));
  }
  return found;
}

TEST(Readers, ASoundFolderIsReadByAll) {
  for (const auto& [name, verdict] : verdicts(Architecture::qwen3, "{", "{")) {
    EXPECT_EQ(verdict.reading, Reading::whole) << name << ": " << (verdict.reasons.empty() ? "" : verdict.reasons[0]);
  }
}

TEST(Readers, KeysThatOnlyTransformers5Knows) {
  const auto found = verdicts(Architecture::qwen3_moe, "\"num_experts\"", "\"num_local_experts\"");
  EXPECT_EQ(found.at("shoestring").reading, Reading::whole);
  EXPECT_EQ(found.at("transformers 5").reading, Reading::whole);
  EXPECT_EQ(found.at("transformers 4.57").reading, Reading::refused);
  EXPECT_EQ(found.at("vLLM").reading, Reading::refused);
}

// Its key is passed over there.
TEST(Readers, AnotherScoreOfExpertsIsAnotherModel) {
  const auto found =
      verdicts(Architecture::deepseek_v3, "\"scoring_func\": \"sigmoid\"", "\"scoring_func\": \"sqrtsoftplus\"");
  EXPECT_EQ(found.at("shoestring").reading, Reading::whole);
  EXPECT_EQ(found.at("transformers 4.57").reading, Reading::refused);
  EXPECT_EQ(found.at("transformers 5").reading, Reading::refused);
  EXPECT_NE(found.at("vLLM").reading, Reading::refused);
  EXPECT_EQ(verdicts(Architecture::deepseek_v3, "{", "{").at("transformers 5").reading, Reading::whole);
}

TEST(Readers, TheTokenizersOfQwen2AndFurtherTokensWantCare) {
  EXPECT_EQ(verdicts(Architecture::qwen2, "{", "{").at("transformers 5").reading, Reading::with_care);
  const auto further = verdicts(Architecture::deepseek_v3, "{", "{");
  EXPECT_EQ(further.at("vLLM").reading, Reading::with_care);
  EXPECT_EQ(further.at("llama.cpp").reading, Reading::refused);
  EXPECT_EQ(further.at("shoestring").reading, Reading::whole);
}

}  // namespace
}  // namespace shoestring::testing
