#include "kernels/base/printable.h"

#include <gtest/gtest.h>

namespace shoestring {
namespace {

TEST(Printable, WhatSteersATerminalIsWrittenOut) {
  EXPECT_EQ(printable("a\x1b[2Jb"), "a\\x1b[2Jb");
  EXPECT_EQ(printable(std::string_view("\r\x7f\0", 3)), "\\x0d\\x7f\\x00");
  EXPECT_EQ(printable("\xC2\x9B"
                      "31m"),
            "\\xc2\\x9b31m")
      << "an escape sequence's beginning in one character";
}

// A name whose end is shown first is another name to who reads it.
TEST(Printable, WhatTurnsTheDirectionIsWrittenOut) {
  EXPECT_EQ(printable("runs/\u202Ecod.exe"), "runs/\\xe2\\x80\\xaecod.exe");
  EXPECT_EQ(printable("a\u2066b\u2069\u200F"), "a\\xe2\\x81\\xa6b\\xe2\\x81\\xa9\\xe2\\x80\\x8f");
  EXPECT_EQ(printable("\u2028"), "\\xe2\\x80\\xa8");
  EXPECT_EQ(printable("\u05D0\u200D\u2027"), "\u05D0\u200D\u2027") << "letters of another direction, and joiners, stay";
}

TEST(Printable, TheRestStays) {
  const std::string text = "one\n\ttwo \u00e9 \u4e2d \U0001F600 \u00a0";
  EXPECT_EQ(printable(text), text);
  EXPECT_EQ(printable(""), "");
}

TEST(Printable, BytesThatAreNoTextAreWrittenOut) {
  EXPECT_EQ(printable("\x9b"), "\\x9b");
  EXPECT_EQ(printable("\xE4\xB8"), "\\xe4\\xb8") << "cut short";
  EXPECT_EQ(printable("\xE4\x1b\x80"), "\\xe4\\x1b\\x80");
  EXPECT_EQ(printable("\xFF\xC1\x80"), "\\xff\\xc1\\x80");
}

}  // namespace
}  // namespace shoestring
