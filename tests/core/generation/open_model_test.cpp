#include "core/generation/open_model.h"

#include <gtest/gtest.h>

#include "core/model/hugging_face_config.h"
#include "core/training/safetensors.h"
#include "kernels/base/check.h"
#include "kernels/base/file.h"
#include "tests/core/model/small_models.h"
#include "tests/support/temporary_folder.h"

namespace shoestring::testing {
namespace {

/// A small model of bytes in a folder.
class OpenedModel : public ::testing::Test {
 protected:
  OpenedModel() {
    const std::unique_ptr<Tokenizer> bytes = byte_tokenizer();
    ModelConfig config = small_config(Architecture::llama);
    config.vocabulary = static_cast<std::int64_t>(bytes->vocabulary_size());
    SmallRun run(config, policy(PrecisionPolicy::fp32));
    std::vector<NamedTensor> tensors;
    for (const Parameter* parameter : run.model.parameters()) {
      for (const ParameterSlice& slice : parameter->slices) {
        tensors.push_back(
            {slice.name, ConstTensorView(parameter->value.slice(0, slice.begin, slice.rows)).reshaped(slice.shape)});
      }
    }
    write_text(folder_ / "config.json", write_hugging_face_config(config, {}));
    write_text(folder_ / bytes->file_name(), bytes->file_content());
    FileWriter file(folder_ / "model.safetensors");
    write_safetensors(file, tensors);
    file.finish();
  }

  /// Opens it; what was refused, or nothing.
  std::string refused(const OpenModelOptions& options) const {
    try {
      OpenModel model(folder_.path(), options);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::io);
      return error.what();
    }
    return {};
  }

  TemporaryFolder folder_;
};

TEST_F(OpenedModel, ThatDoesNotFitIntoMemoryIsRefusedBeforeItsWeightsAreRead) {
  bool read = false;
  OpenModelOptions options{.threads = 1, .memory = MemoryLeft{10000, "the test has 10000 bytes"}};
  options.progress = [&](std::int64_t, std::int64_t) { read = true; };
  const std::string text = refused(options);
  for (const char* part : {"memory: the model needs ", "and can have 9.31e-06 (the test has 10000 bytes)", "weights ",
                           "of 1 text of ", "--context", "--latents"}) {
    EXPECT_NE(text.find(part), std::string::npos) << text;
  }
  EXPECT_FALSE(read);
}

TEST_F(OpenedModel, ThatFitsWithFewerTextsDoes) {
  OpenModelOptions options{.threads = 1, .slots = 64, .memory = MemoryLeft{std::int64_t{1} << 30, "one GiB"}};
  EXPECT_EQ(refused(options), "");
  options.memory->bytes = std::int64_t{900} << 10;
  EXPECT_NE(refused(options).find("of 64 texts of "), std::string::npos);
  options.slots = 1;
  options.capacity = 8;
  options.rows = 8;
  EXPECT_EQ(refused(options), "");
}

}  // namespace
}  // namespace shoestring::testing
