#include "core/training/model_files.h"

#include <gtest/gtest.h>

namespace shoestring {
namespace {

TEST(TokenizerCaveat, OnlyWhereOthersReadAnotherTokenizer) {
  EXPECT_NE(tokenizer_caveat(Architecture::qwen2).find("PreTrainedTokenizerFast"), std::string::npos);
  EXPECT_EQ(tokenizer_caveat(Architecture::llama), "");
  EXPECT_EQ(tokenizer_caveat(Architecture::qwen3), "");
}

}  // namespace
}  // namespace shoestring
