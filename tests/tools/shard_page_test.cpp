#include "tools/shard_page.h"

#include <gtest/gtest.h>

namespace shoestring {
namespace {

ShardContents hostile() {
  ShardContents contents;
  contents.shards = 1;
  contents.documents = 3;
  contents.tokens = 100;
  contents.tokens_per_byte = 0.25;
  contents.vocabulary_size = 300;
  contents.distinct_ids = 7;
  contents.lengths = {{1, 0, 0}, {2, 1, 3}, {4, 2, 97}};
  contents.frequent = {{10, 50, "\n"}, {60, 20, "<b>"}, {61, 5, "\x1B[2J"}};
  contents.samples = {{"a.h5, document 0", 3, "<script>alert(1)</script>\n& more"}};
  contents.sources["\"><img src=x>"] = {1, 3, 100};
  return contents;
}

// What shards hold was written by strangers: it stands there as text, and moves no cursor.
TEST(ShardPage, ShowsHostileTextAsText) {
  const std::string page = contents_page("Shards: <x>", hostile());
  for (const char* part : {"<script", "<img", "<b>", "Shards: <x>"}) {
    EXPECT_EQ(page.find(part), std::string::npos) << part;
  }
  EXPECT_NE(page.find("&lt;script&gt;alert(1)&lt;/script&gt;"), std::string::npos);
  EXPECT_NE(page.find("default-src 'none'"), std::string::npos);
  const std::string text = contents_text(hostile());
  EXPECT_EQ(text.find('\x1B'), std::string::npos);
  EXPECT_NE(text.find("\\x1b[2J"), std::string::npos);
}

TEST(ShardPage, ListsLengthsThatOccur) {
  const std::string text = contents_text(hostile());
  EXPECT_EQ(text.find("1 to 1"), std::string::npos);
  EXPECT_NE(text.find("4 to 7"), std::string::npos);
  EXPECT_NE(text.find("50.00%  \\n"), std::string::npos) << text;
  EXPECT_NE(text.find("0.2500"), std::string::npos);
}

}  // namespace
}  // namespace shoestring
