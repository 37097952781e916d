#include "kernels/base/json.h"

#include <gtest/gtest.h>

#include <chrono>
#include <cmath>
#include <limits>
#include <map>

namespace shoestring {
namespace {

std::string refusal(const std::string& text, const JsonLimits& limits = {}) {
  try {
    parse_json(text, "file", ExitCode::corrupt_checkpoint, limits);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::corrupt_checkpoint);
    return error.what();
  }
  return "was read";
}

std::string nested(int levels, const std::string& open, const std::string& close) {
  std::string text;
  for (int i = 0; i < levels; ++i) text += open;
  for (int i = 0; i < levels; ++i) text += close;
  return text;
}

TEST(Json, ReadsWhatItWrites) {
  const std::string text =
      R"({"null":null,"yes":true,"no":false,"negative":-9223372036854775808,"large":18446744073709551615,)"
      R"("real":0.1,"small":1e-05,"whole":2.0,"text":"a\"\\\n\u00e9","list":[1,[],{}],"object":{"a":{"b":1}}})";
  const Json value = parse_json(text, "text");
  EXPECT_EQ(parse_json(value.dump(), "again").dump(2), value.dump(2));
  EXPECT_EQ(value.at("negative").whole(), INT64_MIN);
  EXPECT_EQ(value.at("large").number(), 18446744073709551615.0);
  EXPECT_EQ(value.at("real").number(), 0.1);
  EXPECT_EQ(value.at("text").text(), "a\"\\\n\xC3\xA9");
  EXPECT_EQ(value.at("list").items().size(), 3u);
  EXPECT_EQ(value.at("object").at("a").at("b").count(), 1);
  EXPECT_TRUE(value.at("yes").flag());
  EXPECT_TRUE(value.at("null").is_null());
  EXPECT_EQ(value.find("absent"), nullptr);
  EXPECT_EQ(value.at("list").find("a"), nullptr);
  EXPECT_EQ(value.members().front().key, "null");  // order is kept
}

TEST(Json, WritesOnOneLineOrIndented) {
  Json value = Json::object({{"a", 1}, {"b", Json::array()}, {"c", nullptr}});
  value.set("a", Json::array_of(std::vector<double>{1, 0.5, std::nan("")}));
  value.add("d", Json::object_of(std::map<std::string, std::string>{{"x", "y"}}));
  value.add("e", "\xFF");
  EXPECT_EQ(value.dump(), "{\"a\":[1.0,0.5,null],\"b\":[],\"c\":null,\"d\":{\"x\":\"y\"},\"e\":\"\xEF\xBF\xBD\"}");
  EXPECT_EQ(Json::object({{"a", Json::array_of(std::vector<int>{1})}}).dump(1), "{\n \"a\": [\n  1\n ]\n}");
  EXPECT_EQ(Json::object().dump(2), "{}");
}

TEST(Json, KindsAreNotConverted) {
  const Json value = parse_json(R"({"t":"1","r":1.0,"n":-1,"u":18446744073709551615,"b":true})", "text");
  for (const char* key : {"t", "r", "u", "b"}) EXPECT_THROW(value.at(key).whole(), Error) << key;
  for (const char* key : {"t", "r", "n", "u", "b"}) EXPECT_THROW(value.at(key).count(), Error) << key;
  EXPECT_THROW(value.at("t").number(), Error);
  EXPECT_THROW(value.at("n").text(), Error);
  EXPECT_THROW(value.at("n").items(), Error);
  EXPECT_THROW(value.at("n").members(), Error);
  EXPECT_THROW(value.at("absent"), Error);
  EXPECT_THROW(value.number_or("t", 0), Error);
  EXPECT_EQ(value.whole_or("n", 7), -1);
  EXPECT_EQ(value.whole_or("absent", 7), 7);
  EXPECT_THROW(parse_json("5", "text").count(4), Error);
}

TEST(Json, RefusalsNameThePlace) {
  EXPECT_EQ(refusal("{\"a\": 1,\n \"b\": ?}").substr(0, 9), "file:2:7:");
  const JsonLimits exact{.exact = true};
  EXPECT_NE(refusal("[1, 18446744073709551616]", exact).find("file:1:25: a whole number beyond 64 bits"),
            std::string::npos)
      << refusal("[1, 18446744073709551616]", exact);
  EXPECT_NE(refusal("[-9223372036854775809]", exact).find("beyond 64 bits"), std::string::npos);
  EXPECT_NE(refusal("[1e999]").find("file:1:"), std::string::npos);
  EXPECT_NE(refusal("{\"a\":1,\"b\":{\"c\":1,\"c\":2}}").find("the key \"c\" stands twice"), std::string::npos);
  EXPECT_NE(refusal("[1] 2").find("file:1:5"), std::string::npos) << refusal("[1] 2");
  EXPECT_NE(refusal("").find("file:1:1"), std::string::npos);
  EXPECT_NE(refusal("[\"\xFF\"]").find("UTF-8"), std::string::npos);
  EXPECT_LT(refusal("[" + std::string(100000, 'x') + "]").size(), 300u);
}

// What transformers writes as the length of texts that has no limit: nobody here asks for it.
TEST(Json, WholeNumbersBeyond64BitsAreNumbersAndNotWhole) {
  const Json value =
      parse_json(R"({"model_max_length":1000000000000000019884624838656,"low":-9223372036854775809})", "");
  for (const char* key : {"model_max_length", "low"}) {
    EXPECT_TRUE(value.at(key).is_number()) << key;
    EXPECT_FALSE(value.at(key).is_whole()) << key;
    EXPECT_THROW(value.at(key).whole(), Error) << key;
  }
  EXPECT_EQ(value.at("model_max_length").number(), 1e30);
  EXPECT_EQ(parse_json(value.dump(), "again").dump(), value.dump());
}

// The library takes a NUL byte for the end, so that what stands behind a hole in a file would be lost in silence.
TEST(Json, ANulByteEndsNothing) {
  for (const std::string_view tail : {std::string_view("\0", 1), std::string_view("\0\0{\"b\":2}", 9)}) {
    const std::string text = "{\n \"a\": 1}" + std::string(tail);
    EXPECT_NE(refusal(text).find("file:2:9: a NUL byte"), std::string::npos) << refusal(text);
    EXPECT_THROW(parse_json_text_field(R"({"text":"a"})" + std::string(tail), "text", "line 1"), Error);
  }
  EXPECT_EQ(refusal(R"(["a\u0000b"])"), "was read");
}

TEST(Json, DepthIsBoundedWhateverHoldsTheBrackets) {
  EXPECT_EQ(refusal(nested(32, "[", "]")), "was read");
  EXPECT_NE(refusal(nested(33, "[", "]")).find("deeper than 32"), std::string::npos);
  EXPECT_NE(refusal(nested(500000, "[", "]")).find("file:1:33"), std::string::npos);
  EXPECT_NE(refusal(nested(500000, "{\"a\":", "}")).find("deeper"), std::string::npos);
  EXPECT_EQ(refusal("[\"" + std::string(500000, '[') + "\"]"), "was read");
  EXPECT_NE(refusal("[\"" + std::string(100, ']') + "\"," + nested(100, "[", "]") + "]").find("deeper"),
            std::string::npos);
  EXPECT_NE(refusal("[1, 2]", {.bytes = 5, .depth = 3}).find("6 bytes"), std::string::npos);
}

TEST(Json, ManyKeysAreFoundAndTwinsAmongThem) {
  std::string text = "{";
  for (int i = 0; i < 20000; ++i) text += "\"k" + std::to_string(i * 7919 % 20000) + "\":" + std::to_string(i) + ",";
  const Json value = parse_json(text + "\"last\":1}", "text");
  EXPECT_EQ(value.size(), 20001u);
  for (int i = 0; i < 20000; ++i) ASSERT_EQ(value.at("k" + std::to_string(i * 7919 % 20000)).whole(), i);
  EXPECT_EQ(value.find("k20000"), nullptr);
  EXPECT_NE(refusal(text + "\"k77\":1}").find("the key \"k77\" stands twice"), std::string::npos);
}

TEST(Json, AFieldIsTakenWithoutATree) {
  const auto field = [](const std::string& text) { return parse_json_text_field(text, "text", "line 1"); };
  EXPECT_EQ(field(R"({"id":18446744073709551616,"text":"a\tb","more":{"text":"no"}})"), "a\tb");
  EXPECT_THROW(field(R"({"text":"a","text":"b"})"), Error) << "it would mean two things";
  EXPECT_THROW(field(R"({"text":"a","text":5})"), Error);
  EXPECT_EQ(field(R"({"text":"a","x":1,"x":2,"y":{"text":3}})"), "a");
  EXPECT_EQ(field(R"({"text":{"text":"a"}})"), std::nullopt);
  EXPECT_EQ(field(R"({"text":[],"x":"a"})"), std::nullopt);
  EXPECT_EQ(field(R"({"x":"a"})"), std::nullopt);
  EXPECT_EQ(field(R"(["text","a"])"), std::nullopt);
  EXPECT_EQ(field("\"text\""), std::nullopt);
  EXPECT_EQ(field("{\"x\":" + nested(500000, "[", "]") + ",\"text\":\"deep\"}"), "deep");
  EXPECT_THROW(field(R"({"text":"a")"), Error);
}

}  // namespace
}  // namespace shoestring
