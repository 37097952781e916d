// What the files of a folder say of the ids around texts. The expected ids are those of transformers 4.57 and 5.24
// where the two agree.
#include "core/generation/text_ids.h"

#include <gtest/gtest.h>

#include <map>

#include "kernels/base/check.h"

namespace shoestring {
namespace {

using Ids = std::vector<std::int32_t>;
using Files = std::map<std::string, std::string>;

constexpr std::int32_t kEnd = 256, kOther = 257;  // "</s>", and a token that can stand in front of texts

TextIds ids_of(Files files, const Tokenizer& tokenizer = *byte_tokenizer()) {
  files.emplace("config.json", R"({"eos_token_id": 5})");
  return text_ids(tokenizer, "folder", [&](const std::string& name) { return files[name]; });
}

Files processor(const std::string& step) { return {{"tokenizer.json", R"({"post_processor": )" + step + "}"}}; }
Files settings(const std::string& object) { return {{"tokenizer_config.json", object}}; }
Files habits(const std::string& object) { return {{"generation_config.json", object}}; }

std::string refusal(const Files& files) {
  try {
    ids_of(files);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::bad_data) << error.what();
    return error.what();
  }
  return "accepted";
}

/// A template that writes `front` (by the names of special_tokens) in front of texts, and `back` behind them.
std::string text_template(const std::string& front, const std::string& back = {}) {
  return R"({"type": "TemplateProcessing", "single": [)" + front + R"({"Sequence": {"id": "A", "type_id": 0}})" + back +
         R"(], "pair": [], "special_tokens": {"b": {"id": "b", "ids": [257, 258], "tokens": ["b", "c"]},)" +
         R"( "x": {"id": "x", "ids": [999], "tokens": ["x"]}}})";
}
const std::string kBegin = R"({"SpecialToken": {"id": "b", "type_id": 0}})";

TEST(TextIds, TheTemplatesTokensStandInFront) {
  EXPECT_EQ(ids_of({}).leading, Ids{});
  EXPECT_EQ(ids_of(processor("null")).leading, Ids{});
  EXPECT_EQ(ids_of(processor(text_template(kBegin + ","))).leading, (Ids{kOther, 258})) << "all ids of the token";
  EXPECT_EQ(ids_of(processor(R"({"type": "Sequence", "processors": [{"type": "ByteLevel"}, )" +
                             text_template(kBegin + ",") + "]}"))
                .leading,
            (Ids{kOther, 258}));
}

TEST(TextIds, WhatChangesPromptsInAnotherWayIsRefusedWithFileAndKey) {
  for (const char* step : {R"({"type": "RobertaProcessing", "sep": ["</s>", 256], "cls": ["<s>", 257]})",
                           R"({"type": "BertProcessing", "sep": ["</s>", 256], "cls": ["<s>", 257]})",
                           R"({"type": "Sequence"})", R"({"type": 5})", R"("x")", R"({"type": "TemplateProcessing"})",
                           R"({"type": "TemplateProcessing", "single": [{"SpecialToken": {}}]})",
                           R"({"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "b"}}]})"}) {
    EXPECT_NE(refusal(processor(step)).find("folder/tokenizer.json: post_processor"), std::string::npos)
        << step << ": " << refusal(processor(step));
  }
  EXPECT_NE(refusal(processor(text_template("", "," + kBegin))).find("behind every text"), std::string::npos);
  EXPECT_NE(refusal(processor(text_template(R"({"SpecialToken": {"id": "x"}},)"))).find("999"), std::string::npos);
  EXPECT_NE(refusal(settings(R"({"tokenizer_class": "LlamaTokenizerFast", "add_eos_token": true})")).find("add_eos"),
            std::string::npos);
}

TEST(TextIds, ABlankInFrontIsRefusedWhereTheTokenizerPutsNone) {
  const TokenizerFiles companions = byte_tokenizer()->companion_files();
  ASSERT_EQ(companions[0].first, "tokenizer.json");
  const std::unique_ptr<Tokenizer> tokenizer = tokenizer_from(companions[0].second, "tokenizer.json");
  EXPECT_EQ(ids_of(settings(R"({"add_prefix_space": false})"), *tokenizer).leading, Ids{});
  EXPECT_THROW(ids_of(settings(R"({"add_prefix_space": true})"), *tokenizer), Error);
}

// Only Llama's classes look at add_bos_token; what the post-processor writes goes before.
TEST(TextIds, WhetherABeginningIsAddedDependsOnTheClass) {
  const auto leading = [](const std::string& name) {
    return ids_of(settings(R"({"bos_token": "<|fim_begin|>", "add_bos_token": true, "tokenizer_class": ")" + name +
                           R"("})"))
        .leading;
  };
  EXPECT_EQ(leading("LlamaTokenizerFast"), Ids{kOther});
  for (const char* name : {"PreTrainedTokenizerFast", "TokenizersBackend", "Qwen2Tokenizer", "GPT2TokenizerFast"}) {
    EXPECT_EQ(leading(name), Ids{}) << name;
  }
  EXPECT_EQ(ids_of(settings(R"({"bos_token": "<|fim_begin|>", "tokenizer_class": "Qwen2Tokenizer"})")).prefix, kOther);
  EXPECT_NE(refusal(settings(R"({"bos_token": "<none>", "add_bos_token": true})")).find("<none>"), std::string::npos);
}

TEST(TextIds, GenerationConfigGoesBeforeConfig) {
  EXPECT_EQ(ids_of({}).stop, (Ids{kEnd, 5}));
  EXPECT_EQ(ids_of(habits(R"({"eos_token_id": null})")).stop, (Ids{kEnd, 5}));
  EXPECT_EQ(ids_of(habits(R"({"eos_token_id": 7})")).stop, (Ids{kEnd, 7}));
  EXPECT_EQ(ids_of(habits(R"({"eos_token_id": [7, 8, -1]})")).stop, (Ids{kEnd, 7, 8}));
  EXPECT_EQ(ids_of(habits(R"({"eos_token_id": [7, 8, -1]})")).not_applied, "");
  for (const char* id : {"\"x\"", "1.5", "true", "[7, \"x\"]", "9223372036854775808", "1e30"}) {
    const std::string text = refusal(habits(R"({"eos_token_id": )" + std::string(id) + "}"));
    EXPECT_NE(text.find("folder/generation_config.json: eos_token_id"), std::string::npos) << text;
  }
}

TEST(TextIds, AnEndThatTheTokenizerHasNotIsSaid) {
  const std::string said = ids_of(habits(R"({"eos_token_id": [7, 99999], "num_beams": 4})")).not_applied;
  EXPECT_NE(said.find("\nfolder/generation_config.json: eos_token_id: 99999 is beyond the tokenizer's 260"),
            std::string::npos)
      << said;
  const std::string of_config = ids_of({{"config.json", R"({"eos_token_id": 300})"}}).not_applied;
  EXPECT_NE(of_config.find("folder/config.json: eos_token_id: 300 is beyond"), std::string::npos) << of_config;
}

// What transformers writes where texts may be of any length.
TEST(TextIds, ALengthBeyond64BitsIsNobodysBusiness) {
  EXPECT_EQ(ids_of(settings(R"({"model_max_length": 1000000000000000019884624838656})")).stop, (Ids{kEnd, 5}));
}

TEST(TextIds, WhatIsNoFlagOrNoObjectIsRefused) {
  for (const char* value : {"1", "\"false\"", "[]"}) {
    const std::string text = refusal(settings(R"({"add_bos_token": )" + std::string(value) + "}"));
    EXPECT_NE(text.find("folder/tokenizer_config.json: add_bos_token is neither"), std::string::npos) << text;
  }
  EXPECT_NE(refusal(habits("[]")).find("folder/generation_config.json: is no object"), std::string::npos);
  EXPECT_EQ(ids_of(settings(R"({"add_bos_token": null})")).leading, Ids{});
}

TEST(TextIds, SettingsThatAreNotAppliedAreNamed) {
  EXPECT_EQ(ids_of({}).not_applied, "");
  EXPECT_EQ(ids_of(habits(R"({"temperature": 0.6, "top_p": 0.9, "do_sample": true, "repetition_penalty": 1.0,
                              "no_repeat_ngram_size": 0, "suppress_tokens": [], "num_beams": 1,
                              "forced_eos_token_id": null})"))
                .not_applied,
            "");
  const std::string said = ids_of(habits(R"({"repetition_penalty": 1.05, "no_repeat_ngram_size": 3,
                                             "suppress_tokens": [1], "forced_bos_token_id": 0})"))
                               .not_applied;
  for (const char* part : {"folder/generation_config.json", "repetition_penalty = 1.05", "no_repeat_ngram_size = 3",
                           "suppress_tokens = [1]", "forced_bos_token_id = 0"}) {
    EXPECT_NE(said.find(part), std::string::npos) << said;
  }
}

}  // namespace
}  // namespace shoestring
