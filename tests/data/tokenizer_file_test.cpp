#include "data/tokenizer_file.h"

#include <gtest/gtest.h>

#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>

#include "data/byte_characters.h"
#include "data/tokenizer.h"
#include "kernels/base/check.h"
#include "tests/support/temporary_folder.h"

namespace shoestring {
namespace {

using Json = nlohmann::json;
using Ids = std::vector<std::uint32_t>;

constexpr std::uint32_t kHe = 256, kLl = 257, kHell = 258, kHello = 259, kSpaced = 260, kEnd = 261, kThink = 262;

Json small_file() {
  Json vocabulary = Json::object();
  const auto characters = byte_characters();
  for (std::size_t byte = 0; byte < 256; ++byte) vocabulary[characters[byte]] = byte;
  vocabulary["he"] = kHe;
  vocabulary["ll"] = kLl;
  vocabulary["hell"] = kHell;
  vocabulary["hello"] = kHello;
  vocabulary["\u0120hello"] = kSpaced;
  const auto token = [](std::uint32_t id, const char* content, bool special) {
    return Json{{"id", id}, {"content", content}, {"special", special}, {"normalized", false}};
  };
  return {{"added_tokens", {token(kEnd, "<|endoftext|>", true), token(kThink, "<think>", false)}},
          {"normalizer", nullptr},
          {"pre_tokenizer", {{"type", "ByteLevel"}, {"add_prefix_space", false}}},
          {"decoder", {{"type", "ByteLevel"}}},
          {"model",
           {{"type", "BPE"}, {"vocab", vocabulary}, {"merges", {"h e", "l l", "he ll", "hell o", "\u0120 hello"}}}}};
}

std::unique_ptr<Tokenizer> tokenizer_of(const Json& file) { return tokenizer_from(file.dump(), "t.json"); }

Ids ids_of(const Tokenizer& tokenizer, const std::string& text) {
  Ids ids;
  tokenizer.encode(text, ids);
  return ids;
}

std::string back(const Tokenizer& tokenizer, const std::string& text) {
  const Ids ids = ids_of(tokenizer, text);
  return tokenizer.decode(std::vector<std::int32_t>(ids.begin(), ids.end()));
}

TEST(TokenizerFile, EncodesByItsMerges) {
  const auto tokenizer = tokenizer_of(small_file());
  EXPECT_EQ(ids_of(*tokenizer, "hello hello hel"), (Ids{kHello, kSpaced, ' ', kHe, 'l'}));
  EXPECT_EQ(tokenizer->vocabulary_size(), 263u);
  EXPECT_EQ(tokenizer->special().end_of_document, static_cast<std::int32_t>(kEnd));
  EXPECT_EQ(tokenizer->special().fim_hole, -1);
  EXPECT_EQ(tokenizer->file_name(), "tokenizer.json");
  EXPECT_EQ(tokenizer->file_content(), small_file().dump());
}

TEST(TokenizerFile, MergesMayBeWrittenAsPairs) {
  Json file = small_file();
  file["model"]["merges"] = Json::array({{"h", "e"}, {"l", "l"}, {"he", "ll"}, {"hell", "o"}});
  EXPECT_EQ(ids_of(*tokenizer_of(file), "hello"), Ids{kHello});
}

TEST(TokenizerFile, AllBytesComeBack) {
  const auto tokenizer = tokenizer_of(small_file());
  std::string all;
  for (int byte = 0; byte < 256; ++byte) all.push_back(static_cast<char>(byte));
  for (const std::string& text :
       {all, std::string("caf\u00E9\xFF hello\xC3"), std::string(100000, 'l'), std::string()}) {
    EXPECT_EQ(back(*tokenizer, text), text);
  }
}

TEST(TokenizerFile, TextNeverBecomesAControlToken) {
  Json file = small_file();
  for (const bool whole : {false, true}) {
    file["model"]["ignore_merges"] = whole;
    const auto tokenizer = tokenizer_of(file);
    for (const char* text : {"<|endoftext|>", "<think>"}) {
      for (const std::uint32_t id : ids_of(*tokenizer, text)) EXPECT_LT(id, 256u);
      EXPECT_EQ(back(*tokenizer, text), text);
    }
    EXPECT_EQ(tokenizer->control_id("<think>"), static_cast<std::int32_t>(kThink));
    EXPECT_EQ(tokenizer->control_id("hello"), -1);
    const std::vector<std::int32_t> ids = {static_cast<std::int32_t>(kEnd), static_cast<std::int32_t>(kThink)};
    EXPECT_EQ(tokenizer->decode(ids), "<think>");  // the other is special
  }
}

TEST(TokenizerFile, WholeWordsComeBeforeMergesWhereTheFileSaysSo) {
  Json file = small_file();
  file["model"]["merges"] = Json::array({"e l"});
  file["model"]["vocab"]["el"] = 263;
  EXPECT_EQ(ids_of(*tokenizer_of(file), "hello"), (Ids{'h', 263, 'l', 'o'}));
  file["model"]["ignore_merges"] = true;
  EXPECT_EQ(ids_of(*tokenizer_of(file), "hello"), Ids{kHello});
}

TEST(TokenizerFile, NormalFormOnlyWhereTheFileSaysSo) {
  Json file = small_file();
  EXPECT_EQ(back(*tokenizer_of(file), "e\u0301"), "e\u0301");
  file["normalizer"] = {{"type", "NFC"}};
  EXPECT_EQ(back(*tokenizer_of(file), "e\u0301\xFF"), "\u00E9\xFF");
}

TEST(TokenizerFile, SplitsFollowEachOther) {
  Json file = small_file();
  const Json split = {{"type", "Split"}, {"pattern", {{"Regex", "l+"}}}, {"behavior", "Isolated"}, {"invert", false}};
  file["pre_tokenizer"] = {{"type", "Sequence"},
                           {"pretokenizers", {split, {{"type", "ByteLevel"}, {"use_regex", false}}}}};
  EXPECT_EQ(ids_of(*tokenizer_of(file), "hello"), (Ids{kHe, kLl, 'o'}));
}

TEST(TokenizerFile, FoundInAFolder) {
  const testing::TemporaryFolder folder;
  EXPECT_THROW(load_tokenizer(folder.path()), Error);
  std::ofstream(folder.path() / "tokenizer.json") << small_file().dump();
  EXPECT_EQ(load_tokenizer(folder.path())->hash(), tokenizer_of(small_file())->hash());
}

// Each damage, and what must be said of it.
TEST(TokenizerFile, WhatIsNotDoneOrWrongIsRefusedByName) {
  using Damage = std::function<void(Json&)>;
  const std::vector<std::pair<const char*, Damage>> damages = {
      {"model.type is not BPE", [](Json& f) { f["model"]["type"] = "Unigram"; }},
      {"normalizer: Lowercase is not known",
       [](Json& f) {
         f["normalizer"] = {{"type", "Lowercase"}};
       }},
      {"pre_tokenizer: Metaspace is not known",
       [](Json& f) {
         f["pre_tokenizer"] = {{"type", "Metaspace"}};
       }},
      {"there is no ByteLevel step", [](Json& f) { f["pre_tokenizer"] = nullptr; }},
      {"add_prefix_space", [](Json& f) { f["pre_tokenizer"]["add_prefix_space"] = true; }},
      {"belongs to SentencePiece", [](Json& f) { f["model"]["byte_fallback"] = true; }},
      {"ignore_merges is neither true nor false", [](Json& f) { f["model"]["ignore_merges"] = 1; }},
      {"use_regex is neither true nor false", [](Json& f) { f["pre_tokenizer"]["use_regex"] = "false"; }},
      {"lstrip is neither true nor false", [](Json& f) { f["added_tokens"][0]["lstrip"] = "true"; }},
      {"model.dropout: 0.5 leaves merges out", [](Json& f) { f["model"]["dropout"] = 0.5; }},
      {"end_of_word_suffix is not known", [](Json& f) { f["model"]["end_of_word_suffix"] = "</w>"; }},
      {"model.merges[1]: \"q\\\"\" is no token", [](Json& f) { f["model"]["merges"][1] = "q\" q"; }},
      {"model.merges[0]: \"eh\" is no token", [](Json& f) { f["model"]["merges"][0] = "e h"; }},
      {"model.merges[0]: \"\" is no token", [](Json& f) { f["model"]["merges"][0] = "he"; }},
      {"model.merges[0]: \"\" is no token", [](Json& f) { f["model"]["merges"][0] = 7; }},
      {"two tokens with id 256", [](Json& f) { f["model"]["vocab"]["ll"] = kHe; }},
      {"no id from 0", [](Json& f) { f["model"]["vocab"]["ll"] = -1; }},
      {"no id from 0", [](Json& f) { f["model"]["vocab"]["ll"] = 1e9; }},
      {"ids leave holes", [](Json& f) { f["model"]["vocab"]["ll"] = 4000000; }},
      {"added_tokens: token 261 has 0 bytes", [](Json& f) { f["added_tokens"][0]["content"] = ""; }},
      {"none that ends a document", [](Json& f) { f["added_tokens"][0]["content"] = "<|other|>"; }},
      {"text could become it",
       [](Json& f) {
         f["added_tokens"][1] = {{"id", kHell}, {"content", "hell"}, {"special", true}};
       }},
      {"has id 5, but 256",
       [](Json& f) {
         f["added_tokens"][1] = {{"id", 5}, {"content", "he"}};
       }},
  };
  for (const auto& [said, damage] : damages) {
    Json file = small_file();
    damage(file);
    try {
      tokenizer_of(file);
      ADD_FAILURE() << "accepted: " << said;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::bad_data);
      EXPECT_NE(std::string(error.what()).find(said), std::string::npos) << said << "\n" << error.what();
      EXPECT_EQ(std::string(error.what()).rfind("t.json", 0), 0u) << error.what();
    }
  }
}

}  // namespace
}  // namespace shoestring
