// The formats over ChatML: chatml, smollm2, qwen2.5, sky_t1, qwen3.
#include <fmt/format.h>

#include "data/chat_writer.h"
#include "kernels/base/check.h"

namespace shoestring {
namespace {

constexpr std::string_view kStart = "<|im_start|>";
constexpr std::string_view kEnd = "<|im_end|>";
constexpr std::string_view kCall = "<tool_call>";
constexpr std::string_view kCallEnd = "</tool_call>";
constexpr std::string_view kQwenSystem = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.";
constexpr std::string_view kSmolSystem = "You are a helpful AI assistant named SmolLM, trained by Hugging Face";
constexpr std::string_view kToolsFront =
    "# Tools\n\nYou may call one or more functions to assist with the user query.\n\nYou are provided with function "
    "signatures within <tools></tools> XML tags:\n<tools>";
constexpr std::string_view kToolsBack =
    "\n</tools>\n\nFor each function call, return a json object with function name and arguments within "
    "<tool_call></tool_call> XML tags:\n<tool_call>\n{\"name\": <function-name>, \"arguments\": "
    "<args-json-object>}\n</tool_call>";

std::string_view word(ChatRole role) {
  switch (role) {
    case ChatRole::system: return "system";
    case ChatRole::user: return "user";
    case ChatRole::assistant: return "assistant";
    case ChatRole::tool: break;
  }
  return "tool";
}

class ChatmlRenderer {
 public:
  ChatmlRenderer(ChatFormat format, const Conversation& conversation, const ChatOptions& options)
      : format_(format), conversation_(conversation), messages_(conversation.messages), options_(options) {}

  std::vector<ChatPiece> render() {
    system();
    last_query_ = last_query();
    for (std::size_t i = first_is_system() ? 1 : 0; i < messages_.size(); ++i) message(i);
    if (options_.prompt) {
      open(ChatRole::assistant);
      if (format_ == ChatFormat::qwen3 && options_.thinking == false) thought("");
    }
    return out_.take();
  }

 private:
  bool has_tools() const {
    return format_ == ChatFormat::qwen2_5 || format_ == ChatFormat::sky_t1 || format_ == ChatFormat::qwen3;
  }
  bool first_is_system() const { return messages_.front().role == ChatRole::system; }

  void open(ChatRole role) { out_.token(kStart).text(fmt::format("{}\n", word(role))); }
  void close() { out_.token(kEnd).end_reply().text("\n"); }

  // The system message, the format's own where none is given, and the tools behind it.
  void system() {
    std::string_view text;
    if (first_is_system()) {
      text = *messages_.front().content;
    } else if (format_ == ChatFormat::qwen2_5 || format_ == ChatFormat::sky_t1) {
      text = kQwenSystem;
    } else if (format_ == ChatFormat::smollm2) {
      text = kSmolSystem;
    }
    const bool tools = !conversation_.tools.empty();
    if (tools && !has_tools()) no_place(format_, "tools");
    if (text.empty() && !first_is_system() && !tools) return;
    open(ChatRole::system);
    out_.text(text);
    if (tools) {
      if (format_ != ChatFormat::qwen3 || first_is_system()) out_.text("\n\n");
      out_.text(kToolsFront);
      for (const std::string& tool : conversation_.tools) out_.text("\n").text(tool);
      out_.with_marks(kToolsBack, {kCall, kCallEnd});
    }
    close();
  }

  // Qwen3: the last message of a user that is no answer of a tool in disguise.
  std::size_t last_query() const {
    for (std::size_t i = messages_.size(); i-- > 0;) {
      if (messages_[i].role != ChatRole::user) continue;
      const std::string& text = *messages_[i].content;
      if (!(text.starts_with("<tool_response>") && text.ends_with("</tool_response>"))) return i;
    }
    return messages_.size() - 1;
  }

  void message(std::size_t i) {
    const ChatMessage& message = messages_[i];
    if (message.role == ChatRole::assistant) return reply(i);
    if (message.role == ChatRole::tool && has_tools()) return tool_answer(i);
    open(message.role);
    out_.text(*message.content);
    close();
  }

  // Answers of tools that follow each other are one turn.
  void tool_answer(std::size_t i) {
    const auto answers = [&](std::size_t at) { return at < messages_.size() && messages_[at].role == ChatRole::tool; };
    if (i == 0 || !answers(i - 1)) out_.token(kStart).text("user");
    out_.text("\n").mark("<tool_response>").text(fmt::format("\n{}\n", *messages_[i].content)).mark("</tool_response>");
    if (!answers(i + 1)) close();
  }

  void reply(std::size_t i) {
    const ChatMessage& message = messages_[i];
    if (!message.tool_calls.empty() && !has_tools()) no_place(format_, "calls of tools");
    if (format_ == ChatFormat::qwen3) return qwen3_reply(i);
    if (message.reasoning && format_ != ChatFormat::sky_t1) no_place(format_, "reasoning that stands apart");
    const std::string content = sky_content(message);
    open(ChatRole::assistant);
    out_.reply(message.learned).text(content);
    tool_calls(message, content.empty());
    close();
  }

  std::string sky_content(const ChatMessage& message) const {
    const std::string content = message.content.value_or("");
    if (format_ != ChatFormat::sky_t1 || !message.reasoning) return content;
    return fmt::format(
        "<|begin_of_thought|>\n\n{}\n\n<|end_of_thought|>\n\n<|begin_of_solution|>\n\n{}\n\n<|end_of_solution|>",
        *message.reasoning, content);
  }

  void thought(std::string_view reasoning) {
    out_.mark("<think>").text(fmt::format("\n{}\n", reasoning)).mark("</think>").text("\n\n");
  }

  void qwen3_reply(std::size_t i) {
    const ChatMessage& message = messages_[i];
    const ChatReply said = reply_of(message);
    const bool last = i + 1 == messages_.size();
    const bool thinks = i > last_query_ && (last || !said.reasoning.empty());
    open(ChatRole::assistant);
    out_.reply(message.learned && (thinks || said.reasoning.empty()));
    if (thinks) thought(without_end(without_front(said.reasoning, "\n"), "\n"));
    out_.text(thinks ? without_front(said.content, "\n") : said.content);
    tool_calls(message, said.content.empty());
    close();
  }

  // Arguments given as text are quoted once more by Qwen2.5, and printed as they are by Qwen3.
  void tool_calls(const ChatMessage& message, bool at_front) {
    for (const ToolCall& call : message.tool_calls) {
      if (!at_front) out_.text("\n");
      at_front = false;
      const bool quote = call.arguments_quoted && format_ != ChatFormat::qwen3;
      out_.mark(kCall)
          .text(fmt::format("\n{{\"name\": \"{}\", \"arguments\": {}}}\n", call.name,
                            quote ? Json(call.arguments).dump() : call.arguments))
          .mark(kCallEnd);
    }
  }

  ChatFormat format_;
  const Conversation& conversation_;
  const std::vector<ChatMessage>& messages_;
  const ChatOptions& options_;
  std::size_t last_query_ = 0;
  ChatWriter out_;
};

}  // namespace

std::vector<ChatPiece> render_chatml(ChatFormat format, const Conversation& conversation, const ChatOptions& options) {
  return ChatmlRenderer(format, conversation, options).render();
}

}  // namespace shoestring
