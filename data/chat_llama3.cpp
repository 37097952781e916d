// The format of Llama 3.1 to 3.3.
#include <fmt/format.h>

#include "data/chat_json.h"
#include "data/chat_writer.h"
#include "kernels/base/check.h"

namespace shoestring {
namespace {

constexpr std::string_view kToolsFront =
    "Given the following functions, please respond with a JSON for a function call with its proper arguments that best "
    "answers the given prompt.\n\nRespond in the format {\"name\": function name, \"parameters\": dictionary of "
    "argument name and its value}.Do not use variables.\n\n";

class Llama3Renderer {
 public:
  Llama3Renderer(const Conversation& conversation, const ChatOptions& options)
      : conversation_(conversation), messages_(conversation.messages), options_(options) {}

  std::vector<ChatPiece> render() {
    out_.token("<|begin_of_text|>");
    std::size_t next = system();
    if (!conversation_.tools.empty()) tools(next++);
    for (; next < messages_.size(); ++next) message(messages_[next]);
    if (options_.prompt) open("assistant");
    return out_.take();
  }

 private:
  void open(std::string_view role) {
    out_.token("<|start_header_id|>").text(role).token("<|end_header_id|>").text("\n\n");
  }
  void close() { out_.token("<|eot_id|>").end_reply(); }

  /// Returns how many messages are in it.
  std::size_t system() {
    const bool given = messages_.front().role == ChatRole::system;
    open("system");
    if (!conversation_.tools.empty()) out_.text("Environment: ipython\n");
    out_.text(fmt::format("Cutting Knowledge Date: December 2023\nToday Date: {}\n\n", options_.date));
    if (given) out_.text(trimmed(*messages_.front().content));
    close();
    return given ? 1 : 0;
  }

  // They stand in the first message behind the system's, which is taken for a user's.
  void tools(std::size_t first) {
    if (first >= messages_.size() || messages_[first].role != ChatRole::user) {
      no_place(ChatFormat::llama3, "tools where no user speaks first");
    }
    open("user");
    out_.text(kToolsFront);
    for (const std::string& tool : conversation_.tools) {
      out_.text(python_json(parse_json(tool, "a tool", ExitCode::bad_data, {.exact = true}), 4)).text("\n\n");
    }
    out_.text(trimmed(*messages_[first].content));
    close();
  }

  void message(const ChatMessage& message) {
    if (message.reasoning) no_place(ChatFormat::llama3, "reasoning that stands apart");
    switch (message.role) {
      case ChatRole::system: open("system"); break;
      case ChatRole::user: open("user"); break;
      case ChatRole::tool: open("ipython"); break;
      case ChatRole::assistant:
        open("assistant");
        out_.reply(message.learned);
        break;
    }
    if (!message.tool_calls.empty()) {
      call(message);
    } else if (message.role == ChatRole::tool) {
      out_.text(Json(*message.content).dump());
    } else {
      out_.text(trimmed(*message.content));
    }
    close();
  }

  void call(const ChatMessage& message) {
    if (message.tool_calls.size() != 1) no_place(ChatFormat::llama3, "more than one call of a tool in a message");
    const ToolCall& call = message.tool_calls.front();
    out_.text(fmt::format("{{\"name\": \"{}\", \"parameters\": {}}}", call.name,
                          call.arguments_quoted ? Json(call.arguments).dump() : call.arguments));
  }

  const Conversation& conversation_;
  const std::vector<ChatMessage>& messages_;
  const ChatOptions& options_;
  ChatWriter out_;
};

}  // namespace

std::vector<ChatPiece> render_llama3(const Conversation& conversation, const ChatOptions& options) {
  return Llama3Renderer(conversation, options).render();
}

}  // namespace shoestring
