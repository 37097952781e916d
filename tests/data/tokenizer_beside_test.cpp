// Tokens of a folder that its tokenizer.json does not hold. The expected ids are those of transformers 4.57.
#include "data/tokenizer_beside.h"

#include <gtest/gtest.h>

#include <fstream>

#include "data/tokenizer.h"
#include "kernels/base/check.h"
#include "kernels/base/json.h"
#include "tests/support/temporary_folder.h"

namespace shoestring {
namespace {

using Ids = std::vector<std::uint32_t>;

/// The byte tokenizer as a tokenizer.json: 256 bytes, then "</s>" and three more.
class Folder {
 public:
  Folder() { put("tokenizer.json", byte_tokenizer()->companion_files()[0].second); }
  Folder& put(const std::string& name, const std::string& content) {
    std::ofstream(folder_.path() / name) << content;
    return *this;
  }
  Folder& adds(const std::string& tokens) {
    return put("tokenizer_config.json", R"({"bos_token": "<new>", "added_tokens_decoder": )" + tokens + "}");
  }
  std::unique_ptr<Tokenizer> tokenizer(std::int64_t vocabulary = 300) const {
    return load_tokenizer_of_model(folder_.path() / "tokenizer.json", vocabulary);
  }
  Ids prompt(const std::string& text, std::int64_t vocabulary = 300) const {
    Ids ids;
    tokenizer(vocabulary)->encode_prompt(text, ids);
    return ids;
  }
  std::string refusal() const {
    try {
      tokenizer();
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::bad_data);
      return error.what();
    }
    return "accepted";
  }

 private:
  testing::TemporaryFolder folder_;
};

TEST(TokenizerBeside, APromptsTextBecomesTheTokensOfTheFolder) {
  const std::string added =
      R"({"260": {"content": "<new>", "special": true}, "261": {"content": "<w>", "lstrip": true, "rstrip": true}})";
  Folder folder;
  folder.adds(added);
  EXPECT_EQ(folder.prompt("a<new>b </s>"), (Ids{'a', 260, 'b', ' ', 256}));
  EXPECT_EQ(folder.prompt("a <w> b"), (Ids{'a', 261, 'b'}));
  const std::unique_ptr<Tokenizer> tokenizer = folder.tokenizer();
  EXPECT_EQ(tokenizer->vocabulary_size(), 262u);
  EXPECT_EQ(tokenizer->control_id("<new>"), 260);
  const std::vector<std::int32_t> ids = {'a', 260, 261};
  EXPECT_EQ(tokenizer->decode(ids), "a<w>") << "a special one is no text";
  Ids plain;
  tokenizer->encode("<new>", plain);
  EXPECT_EQ(plain.size(), 5u) << "text of a corpus never becomes one";
  EXPECT_EQ(folder.prompt("<new>", 260).size(), 5u) << "none that the model has no place for";
}

TEST(TokenizerBeside, AddedTokensJsonCountsWhereTheSettingsNameNone) {
  Folder folder;
  folder.put("added_tokens.json", R"({"<w>": 261, "<new>": 260})");
  EXPECT_EQ(folder.prompt("<new><w>"), (Ids{260, 261}));
  folder.put("tokenizer_config.json", R"({"bos_token": {"content": "<new>"}})");
  const std::vector<std::int32_t> ids = {260, 261};
  EXPECT_EQ(folder.tokenizer()->decode(ids), "<w>") << "one that is named for a purpose is special";
  folder.adds("{}");
  EXPECT_EQ(folder.prompt("<new>").size(), 5u) << "the settings say that there is none";
}

TEST(TokenizerBeside, WhatTheFileHoldsItselfStays) {
  EXPECT_EQ(Folder().adds(R"({"256": {"content": "</s>", "lstrip": true}})").prompt(" </s>"), (Ids{' ', 256}));
  EXPECT_EQ(Folder().adds(R"({"120": {"content": "x"}})").prompt("axx"), (Ids{'a', 'x', 'x'}));
}

TEST(TokenizerBeside, WhatReadersWouldNumberInAnotherWayIsRefused) {
  const std::vector<std::pair<std::string, std::string>> wrong = {
      {R"({"270": {"content": "<new>"}})", "\"<new>\" has id 270 in the files beside it, where transformers takes 260"},
      {R"({"121": {"content": "x"}})", "\"x\" has id 121"},
      {R"({"260": "<new>"})", "\"260\": has no content"},
      {R"({"x": {"content": "<new>"}})", "\"x\": is no id"},
      {R"({"-1": {"content": "<new>"}})", "is no id"},
      {R"({"99999999999": {"content": "<new>"}})", "is no id"},
      {R"({"260": {"content": ""}})", "a token of 0 bytes"},
      {R"({"260": {"content": "<new>", "lstrip": 1}})", "lstrip is neither true nor false"},
      {"[5]", "is no object"},
  };
  for (const auto& [added, said] : wrong) {
    const std::string refusal = Folder().adds(added).refusal();
    EXPECT_NE(refusal.find(said), std::string::npos) << added << ": " << refusal;
  }
  EXPECT_NE(Folder().put("added_tokens.json", R"({"<new>": "260"})").refusal().find("added_tokens.json: \"<new>\""),
            std::string::npos);
}

}  // namespace
}  // namespace shoestring
