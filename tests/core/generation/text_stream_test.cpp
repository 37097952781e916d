#include "core/generation/text_stream.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "kernels/base/check.h"

namespace shoestring {
namespace {

/// Bytes as tokens, one at a time: each is as half a character as it gets.
std::vector<std::string> shown(TextStream& stream, std::string_view bytes) {
  std::vector<std::string> pieces;
  for (const char byte : bytes) pieces.push_back(stream.add(static_cast<unsigned char>(byte)));
  return pieces;
}

using Pieces = std::vector<std::string>;

TEST(TextStream, ShowsWholeCharacters) {
  const auto tokenizer = byte_tokenizer();
  TextStream stream(*tokenizer);
  EXPECT_EQ(shown(stream, "a\u00e9\u20ac\U0001F600b"),
            (Pieces{"a", "", "\u00e9", "", "", "\u20ac", "", "", "", "\U0001F600", "b"}));
  EXPECT_EQ(stream.finish(), "");
}

TEST(TextStream, BytesThatAreNoCharacterComeOutAsTheyAre) {
  const auto tokenizer = byte_tokenizer();
  TextStream stream(*tokenizer);
  EXPECT_EQ(shown(stream, "\xFF\x80"), (Pieces{"\xFF", "\x80"}));
  EXPECT_EQ(shown(stream, "\xE2x"), (Pieces{"", "\xE2x"}));  // the character never ends
  EXPECT_EQ(shown(stream, "\xE2\x82"), (Pieces{"", ""}));
  EXPECT_EQ(stream.finish(), "\xE2\x82");
}

TEST(TextStream, NothingOfAStopTextIsShown) {
  const auto tokenizer = byte_tokenizer();
  TextStream stream(*tokenizer, {"###", "\n\n"});
  EXPECT_EQ(shown(stream, "a#b"), (Pieces{"a", "", "#b"}));
  EXPECT_EQ(shown(stream, "c\nd\n##"), (Pieces{"c", "", "\nd", "", "\n", ""}));
  EXPECT_FALSE(stream.stopped());
  EXPECT_EQ(stream.add('#'), "");
  EXPECT_TRUE(stream.stopped());
  EXPECT_EQ(stream.add('x') + stream.finish(), "");
}

TEST(TextStream, AnUnfinishedStopTextIsTextAtTheEnd) {
  const auto tokenizer = byte_tokenizer();
  TextStream stream(*tokenizer, {"###"});
  EXPECT_EQ(shown(stream, "a##"), (Pieces{"a", "", ""}));
  EXPECT_EQ(stream.finish(), "##");
  EXPECT_THROW(TextStream(*tokenizer, {""}), Error);
}

TEST(TextStream, CountsUnfinishedBytes) {
  EXPECT_EQ(unfinished_bytes(""), 0u);
  EXPECT_EQ(unfinished_bytes("ab"), 0u);
  EXPECT_EQ(unfinished_bytes("a\xC3"), 1u);
  EXPECT_EQ(unfinished_bytes("a\xE2\x82"), 2u);
  EXPECT_EQ(unfinished_bytes("a\xF0\x9F\x98"), 3u);
  EXPECT_EQ(unfinished_bytes("a\xF0\x9F\x98\x80"), 0u);
  EXPECT_EQ(unfinished_bytes("\x80\x80\x80"), 0u);  // a character that never began
}

}  // namespace
}  // namespace shoestring
