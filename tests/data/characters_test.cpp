#include "data/characters.h"

#include <gtest/gtest.h>

namespace shoestring {
namespace {

TEST(Characters, KindsAreUnicodesCategories) {
  const std::uint8_t* kinds = character_kinds();
  EXPECT_EQ(kinds[U'a'], kind::letter);
  EXPECT_EQ(kinds[U'7'], kind::number);
  EXPECT_EQ(kinds[U'\n'], kind::space | kind::line_end);
  EXPECT_EQ(kinds[U'\v'], kind::space);
  EXPECT_EQ(kinds[U'$'], kind::sign);
  EXPECT_EQ(kinds[0x04], 0);
  EXPECT_EQ(kinds[0xA0], kind::space);
  EXPECT_EQ(kinds[0x2167] & ~kind::unsteady, kind::number);  // a Roman eight
  EXPECT_EQ(kinds[0x301], kind::mark | kind::unsteady);
  EXPECT_EQ(kinds[0x3042], kind::letter | kind::unified);
  EXPECT_EQ(kinds[0x9FA6], kind::letter);  // the first ideograph beyond
  EXPECT_EQ(kinds[0x180E], 0);             // once a space
}

TEST(Characters, FormCMovesJoinsAndReplaces) {
  EXPECT_EQ(to_nfc("e\u0301"), "\u00E9");
  EXPECT_EQ(to_nfc("\u212B"), "\u00C5");
  EXPECT_EQ(to_nfc("\u0958"), "\u0915\u093C");                    // excluded from composition
  EXPECT_EQ(to_nfc("a\u0323\u0302"), to_nfc("a\u0302\u0323"));    // order of marks
  EXPECT_EQ(to_nfc("\u1112\u1161\u11AB"), "\uD55C");              // a syllable of three parts
  EXPECT_EQ(to_nfc("\uD6FC\u11A7\u11A8"), "\uD6FC\u11A7\u11A8");  // not swallowed
  EXPECT_EQ(to_nfc(""), "");
}

// Every character that changes alone or behind another is one that may change a text.
TEST(Characters, WhatFormCChangesIsUnsteady) {
  const std::uint8_t* kinds = character_kinds();
  for (const std::string_view text : {"e\u0301", "\u212B", "\u0958", "a\u0302\u0323", "\u1112\u1161", "\uD6FC\u11A8",
                                      "\u09C7\u09BE", "\u0340", "\u2126"}) {
    EXPECT_TRUE(may_change_in_nfc(text)) << text;
    EXPECT_NE(to_nfc(text), text);
  }
  for (const std::string_view text : {"caf\u00E9", "\uD55C", "\u65E5\u672C", "plain text, long enough for a word"}) {
    EXPECT_FALSE(may_change_in_nfc(text)) << text;
  }
  for (std::uint32_t code = 0x80; code < 0x110000; ++code) {
    if (code >= 0xD800 && code < 0xE000) continue;
    if ((kinds[code] & kind::unsteady) != 0) continue;
    std::string text;
    if (code < 0x800) {
      text = {static_cast<char>(0xC0 | code >> 6), static_cast<char>(0x80 | (code & 0x3F))};
    } else if (code < 0x10000) {
      text = {static_cast<char>(0xE0 | code >> 12), static_cast<char>(0x80 | (code >> 6 & 0x3F)),
              static_cast<char>(0x80 | (code & 0x3F))};
    } else {
      text = {static_cast<char>(0xF0 | code >> 18), static_cast<char>(0x80 | (code >> 12 & 0x3F)),
              static_cast<char>(0x80 | (code >> 6 & 0x3F)), static_cast<char>(0x80 | (code & 0x3F))};
    }
    ASSERT_EQ(to_nfc(text), text) << "U+" << std::hex << code;
  }
}

TEST(Characters, OnlyWellFormedBytesCount) {
  for (const std::string_view text : {"\xFF", "\xC0\xAF", "\xED\xA0\x80", "\xE2\x96", "\xF4\x90\x80\x80", "\x80"}) {
    EXPECT_EQ(well_formed_bytes(text), 0u);
    const std::string behind = std::string(20, 'x') + "\u00E9" + std::string(text) + "y";
    EXPECT_EQ(well_formed_bytes(behind), 22u);
  }
  EXPECT_EQ(well_formed_bytes("\U0010FFFF"), 4u);
}

}  // namespace
}  // namespace shoestring
