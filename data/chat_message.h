// A conversation: what was said, by whom, as lines of JSON keep it.
//
// Two forms are read. `messages`: objects with `role` and `content`, as the interfaces of OpenAI have them, with
// `reasoning_content` (or `reasoning`, `thinking`), `tool_calls`, and `weight` 0 for a reply that is not to be learned;
// `tools` beside them. `conversations`: objects with `from` and `value`, as ShareGPT has them. `system` may stand
// beside either.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "kernels/base/json.h"

namespace shoestring {

enum class ChatRole : std::uint8_t { system, user, assistant, tool };

struct ToolCall {
  std::string name;
  std::string type = "function";
  std::string arguments;          ///< JSON as Python writes it (chat_json.h)
  bool arguments_quoted = false;  ///< they were given as text, which is kept as it is, instead of as an object
};

struct ChatMessage {
  ChatRole role = ChatRole::user;
  std::optional<std::string> content{};    ///< nothing: a message that only calls tools
  std::optional<std::string> reasoning{};  ///< of a reply, where it stands apart from the content
  std::vector<ToolCall> tool_calls{};
  bool learned = true;  ///< of a reply: may be trained on
};

struct Conversation {
  std::vector<ChatMessage> messages;
  std::vector<std::string> tools{};  ///< JSON as Python writes it, one function each
};

/// Of a line of JSON. Throws Error(bad_data), beginning with `where`, for what is no conversation: no message, an
/// unknown role, a message without content that calls no tool either, content that is not text.
Conversation read_conversation(const Json& line, const std::string& where);

}  // namespace shoestring
