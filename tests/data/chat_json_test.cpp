#include "data/chat_json.h"

#include <gtest/gtest.h>

namespace shoestring {
namespace {

std::string of(const std::string& text, int indent = 0) { return python_json(parse_json(text, "t"), indent); }

// The expected texts are what Python 3.11 prints.
TEST(ChatJson, WritesAsPythonDoes) {
  EXPECT_EQ(
      of(R"({"b":[1,2.50,-0.0,1e-7,1e16,123456789012345680.0,1e22],"a":{"é":"\"\u0001\u007f\/\n"},"t":true,"n":null})"),
      "{\"b\": [1, 2.5, -0.0, 1e-07, 1e+16, 1.2345678901234568e+17, 1e+22], \"a\": {\"é\": "
      "\"\\\"\\u0001\x7f/\\n\"}, \"t\": true, \"n\": null}");
  EXPECT_EQ(of(R"([0.0001, 0.00001, 1000000.0, 3.0])"), "[0.0001, 1e-05, 1000000.0, 3.0]");
}

TEST(ChatJson, IndentsAsPythonDoes) {
  EXPECT_EQ(
      of(R"({"a":[1,{"b":2}],"c":[],"d":{}})", 4),
      "{\n    \"a\": [\n        1,\n        {\n            \"b\": 2\n        }\n    ],\n    \"c\": [],\n    \"d\": "
      "{}\n}");
}

}  // namespace
}  // namespace shoestring
