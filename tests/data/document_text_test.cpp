#include "data/document_text.h"

#include <gtest/gtest.h>

namespace shoestring {
namespace {

using Pieces = std::vector<std::string_view>;

TEST(DocumentText, IsCutIntoWordsLinesAndParagraphs) {
  const DocumentText document(" One two,\n\n\n  three  \nfour\n\t\n");
  EXPECT_EQ(document.words(), (Pieces{"One", "two,", "three", "four"}));
  EXPECT_EQ(document.lines(), (Pieces{"One two,", "three", "four"}));
  EXPECT_EQ(document.paragraphs(), (Pieces{"One two,", "three  \nfour"}));
  for (const char* nothing : {"", " \n\t\n\n"}) {
    EXPECT_TRUE(DocumentText(nothing).words().empty());
    EXPECT_TRUE(DocumentText(nothing).lines().empty());
    EXPECT_TRUE(DocumentText(nothing).paragraphs().empty());
  }
}

TEST(DocumentText, CountsRepeatedPieces) {
  const Repetition found = repetition({"ab", "c", "ab", "ab", "defg"});
  EXPECT_DOUBLE_EQ(found.share, 2.0 / 5);
  EXPECT_DOUBLE_EQ(found.byte_share, 4.0 / 11);
  EXPECT_EQ(repetition({}).share, 0);
}

// Words of one byte: shares can be read off.
TEST(DocumentText, CountsRunsOfWordsOnce) {
  const Pieces words = {"a", "b", "c", "x", "a", "b", "c", "y", "b", "c"};
  EXPECT_DOUBLE_EQ(repeated_runs(words, 2), 0.5) << "a b, b c (its c is new), b c";
  EXPECT_DOUBLE_EQ(repeated_runs(words, 3), 0.3);
  EXPECT_DOUBLE_EQ(repeated_runs(words, 4), 0);
  EXPECT_DOUBLE_EQ(most_frequent_run(words, 2), 0.6) << "b c three times";
  EXPECT_DOUBLE_EQ(most_frequent_run(words, 3), 0.6);
  EXPECT_DOUBLE_EQ(most_frequent_run(words, 4), 0);
  EXPECT_DOUBLE_EQ(repeated_runs({"a"}, 2), 0);
  EXPECT_DOUBLE_EQ(repeated_runs({"a", "a", "a", "a"}, 2), 0.75) << "overlapping runs, each word once";
}

TEST(DocumentText, KnowsLettersByTheirScript) {
  EXPECT_DOUBLE_EQ(script_share("abc d\xC3\xA9 12 .", {"latin"}), 1);
  const std::string mixed = "ab \xD0\xB9\xD0\xBA\xD0\xBB \xE6\x97\xA5";  // 2 latin, 3 cyrillic, 1 han
  EXPECT_DOUBLE_EQ(script_share(mixed, {"cyrillic"}), 0.5);
  EXPECT_DOUBLE_EQ(script_share(mixed, {"han", "latin"}), 0.5);
  EXPECT_DOUBLE_EQ(script_share("\xF0\xA0\x80\x80", {"han"}), 1);
  EXPECT_DOUBLE_EQ(script_share("123", {"han"}), 1) << "no letters: nothing speaks against it";
  EXPECT_DOUBLE_EQ(script_share("\xFF\xC3(\xE6", {"latin"}), 1) << "not UTF-8";
}

}  // namespace
}  // namespace shoestring
