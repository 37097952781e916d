#include "data/chat_message.h"

#include <array>
#include <string_view>
#include <utility>

#include "data/chat_json.h"
#include "kernels/base/check.h"

namespace shoestring {
namespace {

struct RoleName {
  std::string_view name;
  ChatRole role;
};
constexpr std::array kRoleNames = std::to_array<RoleName>({
    {"system", ChatRole::system},
    {"user", ChatRole::user},
    {"human", ChatRole::user},
    {"assistant", ChatRole::assistant},
    {"gpt", ChatRole::assistant},
    {"model", ChatRole::assistant},
    {"tool", ChatRole::tool},
    {"ipython", ChatRole::tool},
    {"observation", ChatRole::tool},
});

ChatRole role_of(const Json& message, std::string_view key, const std::string& where) {
  if (message.find(key) == nullptr) {
    fail(ExitCode::bad_data,
         "{}: has no \"{}\"; a message of a list \"messages\" needs \"role\" and \"content\", one of a list "
         "\"conversations\" \"from\" and \"value\"",
         where, key);
  }
  const std::string name = message.text_or(key, "");
  for (const RoleName& known : kRoleNames) {
    if (known.name == name) return known.role;
  }
  fail(ExitCode::bad_data,
       "{}: \"{}\" is {}, which is no role; there are: system, user, assistant, tool (ShareGPT: human, gpt)", where,
       key, Json(name.substr(0, 64)).dump());
}

// Text, or a list of parts that are all text.
std::optional<std::string> content_of(const Json& message, std::string_view key, const std::string& where) {
  const Json* content = message.find(key);
  if (content == nullptr || content->is_null()) return std::nullopt;
  if (content->is_text()) return content->text();
  const auto refuse = [&] {
    fail(ExitCode::bad_data, "{}: \"{}\" is neither text nor a list of texts, and must be one", where, key);
  };
  if (!content->is_array()) refuse();
  std::string all;
  for (const Json& part : content->items()) {
    const Json* text = part.find("text");
    if (part.text_or("type", "text") != "text" || text == nullptr || !text->is_text()) refuse();
    all += text->text();
  }
  return all;
}

ToolCall call_of(const Json& call, const std::string& where) {
  const Json* inner = call.find("function");
  const Json& function = inner == nullptr ? call : *inner;
  const Json* arguments = function.find("arguments");
  const Json* name = function.find("name");
  if (name == nullptr || !name->is_text() || arguments == nullptr) {
    fail(ExitCode::bad_data, "{}: a call needs \"name\" and \"arguments\"", where);
  }
  ToolCall read{.name = name->text(), .type = call.text_or("type", "function"), .arguments = {}};
  read.arguments_quoted = arguments->is_text();
  read.arguments = read.arguments_quoted ? arguments->text() : python_json(*arguments);
  return read;
}

ChatMessage message_of(const Json& json, std::string_view role_key, std::string_view content_key,
                       const std::string& where) {
  if (!json.is_object()) fail(ExitCode::bad_data, "{}: is no object; it must have a role and a content", where);
  ChatMessage message{.role = role_of(json, role_key, where), .content = content_of(json, content_key, where)};
  for (const std::string_view key : {"reasoning_content", "reasoning", "thinking"}) {
    if (!message.reasoning) message.reasoning = content_of(json, key, where);
  }
  if (const Json* calls = json.find("tool_calls"); calls != nullptr && !calls->is_null()) {
    for (const Json& call : calls->items()) message.tool_calls.push_back(call_of(call, where + ": tool_calls"));
  }
  const bool speaks = message.role == ChatRole::assistant;
  if (!speaks && (message.reasoning || !message.tool_calls.empty())) {
    fail(ExitCode::bad_data, "{}: only a reply reasons or calls tools", where);
  }
  if (!message.content && message.tool_calls.empty()) {
    fail(ExitCode::bad_data, "{}: has no \"{}\"; write one, empty if need be", where, content_key);
  }
  const double weight = json.number_or("weight", 1);
  if (weight != 0 && weight != 1) fail(ExitCode::bad_data, "{}: weight is {}; it must be 0 or 1", where, weight);
  message.learned = speaks && weight == 1;
  return message;
}

/// What stands beside the list under "system" comes before it, unless the list begins with the same.
void take_system(const Json& line, Conversation& read, const std::string& where) {
  const std::optional<std::string> system = content_of(line, "system", where);
  if (!system || system->empty()) return;
  if (!read.messages.empty() && read.messages.front().role == ChatRole::system) {
    if (read.messages.front().content == system) return;
    fail(ExitCode::bad_data,
         "{}: \"system\" says otherwise than the first message, which is of the system too; keep one", where);
  }
  read.messages.insert(read.messages.begin(), ChatMessage{.role = ChatRole::system, .content = system});
}

}  // namespace

Conversation read_conversation(const Json& line, const std::string& where) {
  const Json* messages = line.find("messages");
  const bool shared = messages == nullptr;
  if (shared) messages = line.find("conversations");
  if (messages == nullptr || !messages->is_array()) {
    fail(ExitCode::bad_data, "{}: has neither a list \"messages\" nor a list \"conversations\"; write one", where);
  }
  Conversation read;
  for (std::size_t i = 0; i < messages->size(); ++i) {
    const std::string place = fmt::format("{}: message {}", where, i + 1);
    read.messages.push_back(
        message_of(messages->items()[i], shared ? "from" : "role", shared ? "value" : "content", place));
  }
  take_system(line, read, where);
  if (read.messages.empty()) fail(ExitCode::bad_data, "{}: holds no message; leave such a line out", where);
  if (const Json* tools = line.find("tools"); tools != nullptr && !tools->is_null()) {
    for (const Json& tool : tools->items()) read.tools.push_back(python_json(tool));
  }
  return read;
}

}  // namespace shoestring
