#include "core/recipe/scan.h"

#include <gtest/gtest.h>

#include <string>

#include "kernels/base/check.h"

namespace shoestring {
namespace {

using namespace std::string_view_literals;

TEST(QuoteText, SpellsOutWhatNobodySees) {
  EXPECT_EQ(quote_text("\xC2\xA0layers"), "'<U+00A0>layers'");
  EXPECT_EQ(quote_text("lay\xE2\x80\x8B"
                       "ers"),
            "'lay<U+200B>ers'");
  EXPECT_EQ(quote_text("a\xE2\x80\xAE"
                       "b\xE2\x81\xA6"
                       "c"),
            "'a<U+202E>b<U+2066>c'")
      << "marks of direction";
  EXPECT_EQ(quote_text("\xEF\xBB\xBFx"), "'<U+FEFF>x'");
  EXPECT_EQ(quote_text("\xF3\xA0\x81\x81"), "'<U+E0041>'") << "a tag character";
  EXPECT_EQ(quote_text("a\xE3\x85\xA4\xEF\xBE\xA0\xE2\xA0\x80z"), "'a<U+3164><U+FFA0><U+2800>z'") << "fillers";
  EXPECT_EQ(quote_text("\xEF\xBF\xB9\xEF\xBF\xBA\xEF\xBF\xBB"), "'<U+FFF9><U+FFFA><U+FFFB>'") << "annotations";
  EXPECT_EQ(quote_text("\xE3\x85\xA3\xE2\xA0\x81\xEF\xBF\xBC"), "'\xE3\x85\xA3\xE2\xA0\x81\xEF\xBF\xBC'")
      << "neighbours that are seen";
  EXPECT_EQ(quote_text("caf\xC3\xA9 \xE6\x97\xA5 \xF0\x9F\x99\x82"), "'caf\xC3\xA9 \xE6\x97\xA5 \xF0\x9F\x99\x82'");
  EXPECT_EQ(quote_text("\xFF\x01"), "'\\xff\\x01'");
  EXPECT_EQ(quote_text("\xC0\xAF"), "'\\xc0\\xaf'") << "overlong";
  EXPECT_EQ(quote_text("\xE0\x82\xA9"), "'\\xe0\\x82\\xa9'") << "overlong";
  EXPECT_EQ(quote_text("\xED\xA0\x80"), "'\\xed\\xa0\\x80'") << "half a pair of UTF-16";
  EXPECT_EQ(quote_text("\xF4\x90\x80\x80"), "'\\xf4\\x90\\x80\\x80'") << "beyond Unicode";
}

TEST(QuoteName, SpellsOutWhatOnlyLooksLikeAName) {
  EXPECT_EQ(quote_name("model.hidd\xD0\xB5n"), "'model.hidd<U+0435>n'");
  EXPECT_EQ(quote_name("model.hidden\xFF"), "'model.hidden\\xff'");
}

TEST(ScanText, AFileWhoseLinesEndInCrIsOneMistake) {
  try {
    scan_text("[run]\rname = r\r[model]\rlayers = 2\r", "r");
    ADD_FAILURE() << "taken";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::bad_recipe);
    EXPECT_STREQ(error.what(), "r: its lines end in CR only: save it with LF");
  }
  for (const char* text : {"", "\r", "[run]", "[run]\r", "[run]\r\nname = r\r\n", "[run]\nname = r"}) {
    EXPECT_TRUE(scan_text(text, "r").mistakes.empty()) << text;
  }
}

TEST(ScanText, Utf32IsNotTakenForUtf16) {
  const std::string_view text = "[run]\nname = r\n";
  for (const bool big : {false, true}) {
    for (const bool marked : {false, true}) {
      std::string wide(marked ? (big ? "\0\0\xFE\xFF"sv : "\xFF\xFE\0\0"sv) : ""sv);
      for (const char letter : text)
        wide += big ? std::string({'\0', '\0', '\0', letter}) : std::string({letter, '\0', '\0', '\0'});
      try {
        scan_text(wide, "r");
        ADD_FAILURE() << "taken";
      } catch (const Error& error) {
        EXPECT_STREQ(error.what(), "r: the file is UTF-32, not UTF-8: save it as UTF-8, or convert it with iconv");
      }
    }
  }
}

TEST(ScanText, AFileOfAnotherEncodingIsOneMistake) {
  const std::string_view text = "[run]\nname = r\n[model]\nlayers = 2\n";
  for (const bool big : {false, true}) {
    for (const bool marked : {false, true}) {
      std::string wide = marked ? (big ? "\xFE\xFF" : "\xFF\xFE") : "";
      for (const char letter : text) wide += big ? std::string({'\0', letter}) : std::string({letter, '\0'});
      try {
        scan_text(wide, "r");
        ADD_FAILURE() << "taken";
      } catch (const Error& error) {
        EXPECT_EQ(error.code(), ExitCode::bad_recipe);
        EXPECT_STREQ(error.what(), "r: the file is UTF-16, not UTF-8: save it as UTF-8, or convert it with iconv");
      }
    }
  }
  EXPECT_TRUE(scan_text(text, "r").mistakes.empty());
  EXPECT_TRUE(scan_text("\xEF\xBB\xBF" + std::string(text), "r").mistakes.empty());
}

}  // namespace
}  // namespace shoestring
