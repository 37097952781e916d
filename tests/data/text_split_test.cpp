#include "data/text_split.h"

#include <gtest/gtest.h>

#include <vector>

#include "kernels/base/check.h"
#include "kernels/base/random.h"

namespace shoestring {
namespace {

std::vector<std::string> pieces(const TextSplit& split, const std::string& text) {
  std::vector<std::string> all;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = split.piece_end(text, at);
    EXPECT_GT(end, at);
    all.push_back(text.substr(at, end - at));
    at = end;
  }
  return all;
}

// What the patterns tell apart, joined at random: characters that Unicode 14 and later agree on.
std::string noise(std::uint64_t seed) {
  static const std::vector<std::string> kParts = {"a",          "Z",
                                                  "'",          "s",
                                                  "S",          "'ll",
                                                  "'RE",        "\u017F",
                                                  "1",          "22",
                                                  " ",          "  ",
                                                  "\t",         "\n",
                                                  "\r\n",       ".",
                                                  "#",          "$$",
                                                  "_",          "\u00E9",
                                                  "\u0301",     "\u4E00",
                                                  "\u9FA6",     "\u3042",
                                                  "\v",         "\u00A0",
                                                  "\u2028",     "\u0085",
                                                  "\u2167",     "\u00B2",
                                                  "\x01",       "\u200D",
                                                  "\u180E",     "\u20AC",
                                                  "\U0001F600", "\u0E01",
                                                  "\u0903",     std::string(1, '\0'),
                                                  "\uE000"};
  const Random random(seed, Purpose::test);
  std::string text;
  for (std::uint64_t i = 0; i < 60; ++i) text += kParts[random.below(i, kParts.size())];
  return text;
}

TEST(TextSplit, ScannersCutAsTheEngineDoes) {
  for (const std::string_view pattern : {patterns::gpt2, patterns::llama3, patterns::qwen2, patterns::three_digits,
                                         patterns::unified, patterns::deepseek}) {
    const auto scanner = split_by_pattern(std::string(pattern), "test");
    const auto engine = split_by_engine(std::string(pattern), "test");
    for (std::uint64_t seed = 0; seed < 2000; ++seed) {
      std::string text = noise(seed);
      // PCRE2 alone takes U+180E for a space.
      for (std::size_t at = text.find("\u180E"); at != std::string::npos; at = text.find("\u180E")) text.erase(at, 3);
      ASSERT_EQ(pieces(*scanner, text), pieces(*engine, text)) << pattern << "\n" << text;
    }
  }
}

TEST(TextSplit, DigitsStandAlone) {
  EXPECT_EQ(pieces(*split_digits(), "ab12 \u2167c"), (std::vector<std::string>{"ab", "1", "2", " ", "\u2167", "c"}));
}

TEST(TextSplit, LineEndsInAPatternMayBeWrittenOut) {
  std::string pattern(patterns::deepseek);
  for (const auto& [spelt, itself] : {std::pair{"\\r", "\r"}, std::pair{"\\n", "\n"}}) {
    for (std::size_t at = pattern.find(spelt); at != std::string::npos; at = pattern.find(spelt)) {
      pattern.replace(at, 2, itself);
    }
  }
  const std::string text = "a!\r\n\n \n b";
  EXPECT_EQ(pieces(*split_by_pattern(pattern, "test"), text), pieces(*split_by_engine(pattern, "test"), text));
}

TEST(TextSplit, WhatLiesBetweenMatchesAndEmptyMatchesArePieces) {
  EXPECT_EQ(pieces(*split_by_engine("b+", "test"), "aabbac"), (std::vector<std::string>{"aa", "bb", "ac"}));
  EXPECT_EQ(pieces(*split_by_engine("(?=b)", "test"), "aabba"), (std::vector<std::string>{"aa", "b", "ba"}));
  EXPECT_EQ(pieces(*split_by_engine("x", "test"), "\u00E9\u00E9"), (std::vector<std::string>{"\u00E9\u00E9"}));
}

std::string refusal(const std::string& pattern, const std::string& text) {
  try {
    pieces(*split_by_engine(pattern, "the file: pre_tokenizer"), text);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::bad_data);
    return error.what();
  }
  return "accepted";
}

TEST(TextSplit, APatternThatBacktracksWithoutEndIsGivenUp) {
  const std::string text = std::string(64, 'a') + "!";
  const std::string said = refusal("(a+)+$", text);
  EXPECT_NE(said.find("the file: pre_tokenizer: the pattern gives up at byte 0"), std::string::npos) << said;
}

TEST(TextSplit, WhatIsNoPatternIsSaidWithItsPlace) {
  EXPECT_NE(refusal("a(b", "a").find("character 3 of the pattern"), std::string::npos);
  EXPECT_NE(refusal(std::string(20000, 'a'), "a").find("20000 bytes"), std::string::npos);
}

// What Oniguruma, the engine of the library `tokenizers`, takes in another sense: 158 tokens of a text where it has
// 160.
TEST(TextSplit, WhatOtherEnginesTakeInAnotherSenseIsRefused) {
  for (const char* other :
       {R"(\h+)", R"([\h])", R"(\Qa\E)", R"([\p{L}&&[^\p{Han}]]+)", R"([a[bc]]+)", R"([^]&&a])", R"(\p{N}{1,3}+)",
        R"(a{2}+)", R"(a{2}?)", R"(a{,3})", R"((?m:^.))", R"((?is)a)", R"((?|a|b))", R"((*ANY)a)", R"(x(?#[)[[])"}) {
    EXPECT_NE(refusal(other, "a").find("means something else"), std::string::npos)
        << other << ": " << refusal(other, "a");
  }
  EXPECT_NE(refusal(R"(a|[\p{L}&&b])", "a").find("character 8 of the pattern: && means"), std::string::npos);
  for (const char* same : {R"([[:alpha:]&]+)", R"([]a&]+)", R"([^\]\[]+)", R"(\p{N}{1,3})", R"(\p{N}{2,}?a)", R"(a++)",
                           "a{", "{a}", R"(\x{20}+)", R"([\x{20}-\x{7E}]?+)", R"((?i:'s|'t))", R"((?-i:a)(?i)b)",
                           R"((?<!a)(?=b)(?<n>b)(?>c)?)", R"(\[h\]+)"}) {
    EXPECT_EQ(refusal(same, "ab"), "accepted") << same;
  }
}

TEST(TextSplit, LinesHaveBeginningsAndEnds) {
  EXPECT_EQ(pieces(*split_by_engine("^.", "test"), "ab\ncd"), (std::vector<std::string>{"a", "b\n", "c", "d"}));
  EXPECT_EQ(pieces(*split_by_engine(R"([ \t]+$)", "test"), "a \nb "), (std::vector<std::string>{"a", " ", "\nb", " "}));
}

// Blanks without a line end: the engine looks for one from every place, in turn.
TEST(TextSplit, LongRunsTakeNoSquare) {
  const std::string text(1 << 20, ' ');
  for (const std::string_view pattern : {patterns::gpt2, patterns::llama3, patterns::deepseek}) {
    EXPECT_EQ(pieces(*split_by_pattern(std::string(pattern), "test"), text).size(), 1u);
  }
}

}  // namespace
}  // namespace shoestring
