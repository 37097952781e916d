#include "data/tokenizer_added.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "data/byte_characters.h"
#include "data/tokenizer.h"
#include "kernels/base/json.h"

namespace shoestring {
namespace {

using Ids = std::vector<std::uint32_t>;
constexpr std::uint32_t kFirst = 257;  // id of the first added token behind "</s>"

/// A token with some of the flags "normalized", "lstrip", "rstrip", "single_word".
struct Spelt {
  std::string content;
  std::vector<std::string> flags{};
};

std::unique_ptr<Tokenizer> tokenizer_of(const std::vector<Spelt>& tokens, bool nfc = false) {
  Json vocabulary = Json::object();
  const auto characters = byte_characters();
  for (std::size_t byte = 0; byte < characters.size(); ++byte) vocabulary.add(characters[byte], byte);
  Json added = Json::array();
  added.push(Json::object({{"id", 256}, {"content", "</s>"}, {"special", true}}));
  std::uint32_t id = kFirst;
  for (const Spelt& token : tokens) {
    Json one = Json::object({{"id", id++}, {"content", token.content}});
    for (const std::string& flag : token.flags) one.add(flag, true);
    added.push(std::move(one));
  }
  const Json file = Json::object(
      {{"added_tokens", std::move(added)},
       {"normalizer", nfc ? Json::object({{"type", "NFC"}}) : Json()},
       {"pre_tokenizer", Json::object({{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}})},
       {"model", Json::object({{"type", "BPE"}, {"vocab", std::move(vocabulary)}, {"merges", Json::array()}})}});
  return tokenizer_from(file.dump(), "t.json");
}

Ids prompt_of(const Tokenizer& tokenizer, const std::string& text) {
  Ids ids;
  tokenizer.encode_prompt(text, ids);
  return ids;
}

// The ids are those of `tokenizers` 0.22.2 for the same file and text.
TEST(TokenizerAdded, PromptsHaveTheIdsOfTheLibrary) {
  const auto ids = [](const std::vector<Spelt>& tokens, const std::string& text, bool nfc = false) {
    return prompt_of(*tokenizer_of(tokens, nfc), text);
  };
  const std::string text = "a zz b zzz";
  EXPECT_EQ(ids({{"zz"}}, text), (Ids{97, 32, 257, 32, 98, 32, 257, 122}));
  EXPECT_EQ(ids({{"zz", {"normalized"}}}, text), (Ids{97, 32, 257, 32, 98, 32, 257, 122}));
  EXPECT_EQ(ids({{"zz", {"lstrip"}}}, text), (Ids{97, 257, 32, 98, 257, 122}));
  EXPECT_EQ(ids({{"zz", {"rstrip"}}}, text), (Ids{97, 32, 257, 98, 32, 257, 122}));
  EXPECT_EQ(ids({{"zz", {"single_word"}}}, text), (Ids{97, 32, 257, 32, 98, 32, 122, 122, 122}));
  EXPECT_EQ(ids({{"zz"}, {"zzy"}}, "zzyzz"), (Ids{258, 257})) << "the longest";
  EXPECT_EQ(ids({{"zz", {"lstrip", "rstrip"}}}, " zz\t zz  zz"), (Ids{257, 257, 257}));
  EXPECT_EQ(ids({{"zz", {"lstrip", "rstrip"}}}, "a\u3000zz\u00A0b"), (Ids{97, 257, 98}));
  EXPECT_EQ(ids({{"zz", {"rstrip"}}, {" q"}}, "zz  q q"), (Ids{257, 258, 258}));
  EXPECT_EQ(ids({{"zz", {"single_word"}}}, "zz zz. zz_ \u00E9zz zz\u00E9 \u0301zz -zz"),
            (Ids{257, 32,  257, 46,  32,  122, 122, 95,  32,  195, 169, 122, 122,
                 32,  122, 122, 195, 169, 32,  204, 129, 122, 122, 32,  45,  257}));
  EXPECT_EQ(ids({{"zz", {"single_word"}}, {"z "}}, "zzz z "), (Ids{122, 122, 258, 258}));
  EXPECT_EQ(ids({}, "x</s>y"), (Ids{120, 256, 121})) << "special ones too";
  EXPECT_EQ(ids({{"\u00E9q", {"normalized"}}}, "e\u0301q", true), Ids{257});
  EXPECT_EQ(ids({{"e\u0301q", {"normalized"}}}, "\u00E9q", true), Ids{257});
  EXPECT_EQ(ids({{"\u00E9q"}}, "e\u0301q", true), (Ids{195, 169, 113}));
  EXPECT_EQ(ids({{"zz"}}, "ezz\u0301", true), (Ids{101, 257, 204, 129}));
}

TEST(TokenizerAdded, OtherTextsStayText) {
  const auto tokenizer = tokenizer_of({{"zz"}});
  Ids ids;
  tokenizer->encode("</s>zz", ids);
  EXPECT_EQ(ids, (Ids{'<', '/', 's', '>', 'z', 'z'}));
  EXPECT_EQ(prompt_of(*tokenizer, "z\xFFzz\xC3"), (Ids{'z', 0xFF, 257, 0xC3})) << "bytes that are no UTF-8";
  EXPECT_EQ(prompt_of(*tokenizer, ""), Ids{});
}

TEST(TokenizerAdded, TokenizersOfOtherKindsDoTheSame) {
  EXPECT_EQ(prompt_of(*byte_tokenizer(), "a</s>b<|fim_hole|>"), (Ids{'a', 256, 'b', 258}));
  int part = 0;
  const auto trained = train_sentencepiece(400, 1 << 20, [&](std::string& text) {
    text = "int main(int argc, char **argv) { return argc + " + std::to_string(part) + "; }\n";
    return ++part < 60;
  });
  const Ids ids = prompt_of(*trained, "int</s> main<|fim_begin|>\xFF");
  const auto end = static_cast<std::uint32_t>(trained->special().end_of_document);
  const auto begin = static_cast<std::uint32_t>(trained->special().fim_begin);
  EXPECT_EQ(std::count(ids.begin(), ids.end(), end), 1);
  EXPECT_EQ(ids.at(ids.size() - 2), begin);
}

}  // namespace
}  // namespace shoestring
