#include "data/line_scan.h"

#include <gtest/gtest.h>

#include "kernels/base/check.h"
#include "kernels/base/json.h"
#include "kernels/base/random.h"

namespace shoestring {
namespace {

std::optional<std::string> by_reader(std::string_view line) {
  try {
    return parse_json_text_field(line, "text", "");
  } catch (const Error&) {
    return std::nullopt;
  }
}

TEST(LineScan, FindsTheText) {
  for (const char* line : {
           R"({"text": "plain"})",
           R"( { "id" : "<urn:1>" , "text":"a\"b\\c\/d\be\ff\ng\rh\ti" }  )",
           R"({"text":"","n":[],"m":{}})",
           R"({"meta":{"text":"not this","a":[1,-2.5,0,0.25,true,false,null,{"b":["c"]}]},"text":"this"})",
           R"({"text":"\u0041\u00e9\u20AC\ud83d\ude00\u0000 é€😀, and more of it so that words of eight are met"})",
           R"({"score":0.98230987654321,"count":123456789012345678,"text":"x"})",
       }) {
    const auto found = scan_text_field(line, "text");
    ASSERT_TRUE(found) << line;
    EXPECT_EQ(found, by_reader(line)) << line;
  }
}

// What is rare, not sound or not there is for the reader to judge.
TEST(LineScan, LeavesTheRestToTheReader) {
  for (const char* line : {"",
                           "{",
                           "{}",
                           "[]",
                           "\"text\"",
                           R"({"text":1})",
                           R"({"txt":"a"})",
                           R"({"text":"a"}})",
                           R"({"text":"a"} x)",
                           R"({"text":"a",})",
                           R"({"text":"a" "b":1})",
                           R"({text:"a"})",
                           R"({"text":"a","text":"b"})",
                           R"({"text":"a)",
                           R"({"text":"\x"})",
                           R"({"text":"\u12"})",
                           R"({"text":"\u12G4"})",
                           R"({"text":"\u-123"})",
                           R"({"text":"\ud800"})",
                           R"({"text":"\udc00"})",
                           R"({"text":"\ud800\u0041"})",
                           "{\"text\":\"a\nb\"}",
                           "{\"text\":\"\xff\"}",
                           "{\"text\":\"\xed\xa0\x80\"}",
                           "{\"text\":\"\xc0\xaf\"}",
                           R"({"a":01,"text":"b"})",
                           R"({"a":1.,"text":"b"})",
                           R"({"a":.5,"text":"b"})",
                           R"({"a":+1,"text":"b"})",
                           R"({"a":-,"text":"b"})",
                           R"({"a":1e999,"text":"b"})",
                           R"({"a":1234567890123456789012,"text":"b"})",
                           R"({"a":tru,"text":"b"})",
                           R"({"a":[1,],"text":"b"})",
                           R"({"a":[1 2],"text":"b"})",
                           R"({"a":{"b"},"text":"b"})",
                           R"({"a":{1:2},"text":"b"})"}) {
    EXPECT_FALSE(scan_text_field(line, "text")) << line;
  }
  const std::string deep = R"({"a":)" + std::string(10'000, '[') + std::string(10'000, ']') + R"(,"text":"b"})";
  EXPECT_FALSE(scan_text_field(deep, "text"));
  EXPECT_EQ(by_reader(deep), "b");
}

// Bytes changed, dropped and doubled at random: never another text than the reader's, nor one where it finds none.
TEST(LineScan, NeverDiffersFromTheReader) {
  const std::string line =
      R"({"id":"a-1","meta":{"n":[1,-2.5,0.125],"ok":true,"none":null},"text":"tabs\tand \"quotes\" \\ é\u00e9\ud83d\ude00 😀"})";
  ASSERT_TRUE(scan_text_field(R"({"n":1,"text":"sure"})", "text"));
  constexpr std::string_view kBytes = "\"\\{}[]:,u0dD8e.-tn \n\x80\xC3\xED\xF0\x1F";
  const Random random(16, Purpose::test, 1);
  int found = 0;
  std::uint64_t draws = 0;
  const auto draw = [&](std::uint64_t below) { return random.below(draws++, below); };
  for (int round = 0; round < 60'000; ++round) {
    std::string changed = line;
    for (std::uint64_t change = 0, changes = 1 + draw(3); change < changes; ++change) {
      const std::size_t at = draw(changed.size());
      const char byte = kBytes[draw(kBytes.size())];
      switch (draw(3)) {
        case 0: changed[at] = byte; break;
        case 1: changed.erase(at, 1 + draw(4)); break;
        default: changed.insert(at, 1, byte);
      }
    }
    const auto scanned = scan_text_field(changed, "text");
    if (!scanned) continue;
    ++found;
    ASSERT_EQ(scanned, by_reader(changed)) << changed;
  }
  EXPECT_GT(found, 1000);
}

}  // namespace
}  // namespace shoestring
