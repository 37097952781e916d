#include "data/chat_message.h"

#include <gtest/gtest.h>

#include "kernels/base/check.h"

namespace shoestring {
namespace {

Conversation read(const std::string& line) { return read_conversation(parse_json(line, "t"), "a.jsonl:1"); }
std::string why(const std::string& line) {
  try {
    read(line);
  } catch (const Error& error) {
    return error.code() == ExitCode::bad_data ? error.what() : "another code";
  }
  return "";
}

TEST(ChatMessage, ReadsMessagesWithReasoningCallsAndTools) {
  const Conversation all = read(R"({"messages": [
    {"role": "system", "content": "s"}, {"role": "user", "content": [{"type": "text", "text": "q"}, {"text": "r"}]},
    {"role": "assistant", "content": null, "reasoning_content": "t",
     "tool_calls": [{"type": "function", "function": {"name": "f", "arguments": {"b": 1.0, "a": []}}}]},
    {"role": "tool", "content": "5"}, {"role": "assistant", "content": "five", "weight": 0}],
    "tools": [{"type": "function", "function": {"name": "f"}}]})");
  ASSERT_EQ(all.messages.size(), 5u);
  EXPECT_EQ(all.messages[1].content, "qr");
  EXPECT_FALSE(all.messages[2].content.has_value());
  EXPECT_EQ(all.messages[2].reasoning, "t");
  EXPECT_EQ(all.messages[2].tool_calls.at(0).arguments, R"({"b": 1.0, "a": []})");
  EXPECT_TRUE(all.messages[2].learned);
  EXPECT_FALSE(all.messages[4].learned);
  EXPECT_EQ(all.tools, (std::vector<std::string>{R"({"type": "function", "function": {"name": "f"}})"}));
}

TEST(ChatMessage, ReadsShareGpt) {
  const Conversation all =
      read(R"({"system": "s", "conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]})");
  ASSERT_EQ(all.messages.size(), 3u);
  EXPECT_EQ(all.messages[0].role, ChatRole::system);
  EXPECT_EQ(all.messages[1].role, ChatRole::user);
  EXPECT_EQ(all.messages[2].role, ChatRole::assistant);
  EXPECT_EQ(all.messages[2].content, "a");
}

// Of both shapes: what the model is told about itself must not be lost.
TEST(ChatMessage, TheSystemsTextMayStandBesideTheList) {
  const Conversation all = read(R"({"system": "s", "messages": [{"role": "user", "content": "q"}]})");
  ASSERT_EQ(all.messages.size(), 2u);
  EXPECT_EQ(all.messages[0].role, ChatRole::system);
  EXPECT_EQ(all.messages[0].content, "s");
  const char* rest = R"("messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}]})";
  EXPECT_EQ(read(std::string(R"({"system": "s", )") + rest).messages.size(), 2u) << "once";
  EXPECT_EQ(read(std::string(R"({"system": "", )") + rest).messages.size(), 2u);
  EXPECT_NE(why(std::string(R"({"system": "t", )") + rest).find("says otherwise than the first"), std::string::npos);
}

TEST(ChatMessage, RefusesWhatIsNoConversation) {
  EXPECT_NE(why(R"({"conversations": [{"role": "user", "content": "q"}]})").find("message 1: has no \"from\""),
            std::string::npos);
  EXPECT_NE(why(R"({"text": "t"})").find("a.jsonl:1: has neither"), std::string::npos);
  EXPECT_NE(why(R"({"messages": []})").find("no message"), std::string::npos);
  EXPECT_NE(why(R"({"messages": [{"role": "critic", "content": "c"}]})").find("message 1"), std::string::npos);
  EXPECT_NE(why(R"({"messages": [{"role": "user"}]})").find("has no \"content\""), std::string::npos);
  EXPECT_NE(why(R"({"messages": [{"role": "user", "content": [{"type": "image"}]}]})").find("neither text"),
            std::string::npos);
  EXPECT_NE(why(R"({"messages": [{"role": "user", "content": "q", "reasoning": "r"}]})").find("only a reply"),
            std::string::npos);
  EXPECT_NE(why(R"({"messages": [{"role": "assistant", "content": "q", "weight": 0.5}]})").find("0 or 1"),
            std::string::npos);
  EXPECT_NE(why(R"({"messages": ["q"]})").find("no object"), std::string::npos);
}

}  // namespace
}  // namespace shoestring
