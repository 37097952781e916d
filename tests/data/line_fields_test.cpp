#include "data/line_fields.h"

#include <gtest/gtest.h>

#include "kernels/base/check.h"

namespace shoestring {
namespace {

std::string text_of(const std::string& line, const LineFields& fields) {
  const LineText found = text_of_line(line, fields, "a:1");
  if (!found.wanted) return "(unwanted)";
  return found.text.value_or("(none)");
}

TEST(LineFields, PathsLeadThroughObjects) {
  const std::string line = R"({"text": "t", "a": {"b": {"c": "deep"}, "n": 3}, "x.y": "dotted"})";
  EXPECT_EQ(text_of(line, {}), "t");
  EXPECT_EQ(text_of(line, {{"a.b.c"}, {}}), "deep");
  EXPECT_EQ(text_of(line, {{"x.y"}, {}}), "dotted") << "a key that holds dots itself";
  EXPECT_EQ(text_of(line, {{"a.n"}, {}}), "(none)") << "no text";
  EXPECT_EQ(text_of(line, {{"a.b"}, {}}), "(none)");
  EXPECT_EQ(text_of(line, {{"a.q"}, {}}), "(none)");
  EXPECT_EQ(text_of(line, {{"q"}, {}}), "(none)");
  EXPECT_EQ(text_of("[1, 2]", {{"a.b"}, {}}), "(none)");
  EXPECT_EQ(text_of(line, {{"text", "q", "a.b.c"}, {}}), "t\n\ndeep");
}

TEST(LineFields, FiltersCompareTextNumbersAndFlags) {
  const std::string line = R"({"text": "t", "lang": "en", "n": 3, "f": true, "a": {"b": "c"}, "list": ["en"]})";
  const auto with = [&](const std::string& word) { return text_of(line, {{"text"}, {field_filter(word)}}); };
  for (const char* word : {"lang=en", "n=3", "f=true", "a.b=c"}) EXPECT_EQ(with(word), "t") << word;
  for (const char* word : {"lang=de", "lang=", "n=4", "f=false", "a.b=d", "a=c", "list=en", "none=en"}) {
    EXPECT_EQ(with(word), "(unwanted)") << word;
  }
  EXPECT_EQ(text_of(line, {{"text"}, {{"lang", "en"}, {"n", "4"}}}), "(unwanted)") << "all must hold";
  EXPECT_EQ(field_filter("a=b=c").value, "b=c");
  EXPECT_THROW(field_filter("lang"), Error);
  EXPECT_THROW(field_filter("=en"), Error);
}

TEST(LineFields, WhatIsNotJsonSaysWhereItStands) {
  for (const LineFields& fields : {LineFields{}, LineFields{{"a.b"}, {}}}) {
    try {
      text_of_line("{\"text\": ", fields, "a.jsonl:7");
      FAIL() << "not JSON";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::bad_data);
      EXPECT_TRUE(std::string(error.what()).starts_with("a.jsonl:7: is not JSON at character ")) << error.what();
    }
  }
}

TEST(LineFields, ConversationsAreTheWholeLineAndMustTeachSomething) {
  const LineFields fields{.chat = ChatFormat::chatml};
  const std::string line =
      R"({"lang": "en", "messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]})";
  EXPECT_EQ(text_of(line, fields), line);
  EXPECT_EQ(text_of(line, {.where = {field_filter("lang=de")}, .chat = ChatFormat::chatml}), "(unwanted)");
  for (const char* bad : {R"({"text": "t"})", R"({"messages": [{"role": "user", "content": "q"}]})",
                          R"({"messages": [{"role": "assistant", "content": "a", "weight": 0}]})",
                          R"({"messages": [{"role": "assistant", "content": "a", "reasoning": "r"}]})"}) {
    EXPECT_THROW(text_of(bad, fields), Error) << bad;
  }
}

}  // namespace
}  // namespace shoestring
