// The formats of DeepSeek: V3, R1, V3.1.
#include <fmt/format.h>

#include "data/chat_writer.h"
#include "kernels/base/check.h"

namespace shoestring {
namespace {

constexpr std::string_view kThinkClose = "</think>";

class DeepSeekRenderer {
 public:
  DeepSeekRenderer(ChatFormat format, const Conversation& conversation, const ChatOptions& options)
      : format_(format), messages_(conversation.messages), options_(options) {
    if (!conversation.tools.empty()) no_place(format, "tools (a system message may describe them)");
  }

  std::vector<ChatPiece> render() {
    out_.token("<｜begin▁of▁sentence｜>").text(system());
    for (std::size_t i = 0; i < messages_.size(); ++i) message(i);
    if (v3_1()) {
      if (options_.prompt && asked_ && !answers_) open(options_.thinking.value_or(false));
    } else if (answers_) {
      out_.token("<｜tool▁outputs▁end｜>");
    } else if (options_.prompt) {
      open(true);
    }
    return out_.take();
  }

 private:
  bool v3_1() const { return format_ == ChatFormat::deepseek_v3_1; }
  bool r1() const { return format_ == ChatFormat::deepseek_r1; }

  // All of them in front; of R1 the last one alone.
  std::string system() const {
    std::string text;
    bool first = true;
    for (const ChatMessage& message : messages_) {
      if (message.role != ChatRole::system) continue;
      if (r1()) text.clear();
      text += (first || r1() ? "" : "\n\n") + *message.content;
      first = false;
    }
    return text;
  }

  // The front of a reply, as a prompt ends.
  void open(bool thinks) {
    out_.token("<｜Assistant｜>");
    if (format_ == ChatFormat::deepseek_v3) return;
    if (thinks || v3_1()) out_.mark("<think>");
    if (v3_1() && !thinks) out_.mark(kThinkClose);
    if (r1() && thinks) out_.text("\n");
  }
  void close() { out_.token("<｜end▁of▁sentence｜>").end_reply(); }

  void message(std::size_t i) {
    const ChatMessage& message = messages_[i];
    switch (message.role) {
      case ChatRole::system: return;
      case ChatRole::user:
        out_.token("<｜User｜>").text(*message.content);
        answers_ = false;
        asked_ = true;
        return;
      case ChatRole::tool: return tool_answer(*message.content);
      case ChatRole::assistant:
        message.tool_calls.empty() ? reply(message, i + 1 == messages_.size()) : calls(message);
        asked_ = false;
        answers_ = false;
        return;
    }
  }

  void reply(const ChatMessage& message, bool last) {
    const ChatReply said = reply_of(message);
    const bool behind_tools = answers_;
    const bool keeps = options_.training && last && said.reasons && !behind_tools && (r1() || (v3_1() && asked_));
    if (v3_1()) {
      if (asked_) open(keeps);
    } else if (behind_tools) {
      out_.token("<｜tool▁outputs▁end｜>");
    } else {
      open_reply(keeps);
    }
    out_.reply(message.learned && (keeps || !said.reasons));
    if (keeps) {
      out_.text(said.reasoning).text(r1() ? "\n" : "").mark(kThinkClose);
      out_.text(r1() ? "\n\n" : "").text(r1() ? without_front(said.content, "\n") : said.content);
    } else {
      out_.text(behind_tools ? *message.content : answer_of(message));
    }
    close();
  }

  // R1's template begins a past reply without <think>.
  void open_reply(bool thinks) {
    if (thinks) return open(true);
    out_.token("<｜Assistant｜>");
  }

  /// The content behind </think>: behind the last one, of V3.1 behind the first.
  std::string_view answer_of(const ChatMessage& message) const {
    const std::string_view content = *message.content;
    const std::size_t at = v3_1() ? content.find(kThinkClose) : content.rfind(kThinkClose);
    return message.reasoning || at == std::string_view::npos ? content : content.substr(at + kThinkClose.size());
  }

  void calls(const ChatMessage& message) {
    if (r1()) no_place(format_, "calls of tools: its template does not close them");
    if (v3_1()) {
      if (asked_) open(false);
    } else {
      // Of later ones the template forgets the front.
      if (called_) no_place(format_, "a second round of calls of tools");
      out_.token("<｜Assistant｜>");
    }
    called_ = true;
    const ChatReply said = reply_of(message);
    out_.reply(message.learned && !said.reasons).text(message.content.value_or("")).token("<｜tool▁calls▁begin｜>");
    bool first = true;
    for (const ToolCall& call : message.tool_calls) {
      if (!first && !v3_1()) out_.text("\n");
      first = false;
      this->call(call);
    }
    out_.token("<｜tool▁calls▁end｜>");
    close();
  }

  void call(const ToolCall& call) {
    out_.token("<｜tool▁call▁begin｜>");
    if (v3_1()) {
      out_.text(call.name).token("<｜tool▁sep｜>");
      out_.text(call.arguments_quoted ? Json(call.arguments).dump() : call.arguments);
    } else {
      out_.text(call.type).token("<｜tool▁sep｜>").text(fmt::format("{}\n```json\n{}\n```", call.name, call.arguments));
    }
    out_.token("<｜tool▁call▁end｜>");
  }

  void tool_answer(std::string_view content) {
    if (r1()) no_place(format_, "answers of tools");
    if (!v3_1() && !answers_) out_.token("<｜tool▁outputs▁begin｜>");
    out_.token("<｜tool▁output▁begin｜>").text(content).token("<｜tool▁output▁end｜>");
    answers_ = true;
    asked_ = false;
  }

  ChatFormat format_;
  const std::vector<ChatMessage>& messages_;
  const ChatOptions& options_;
  bool answers_ = false;  // of tools stand last
  bool asked_ = false;    // a user's message stands last
  bool called_ = false;
  ChatWriter out_;
};

}  // namespace

std::vector<ChatPiece> render_deepseek(ChatFormat format, const Conversation& conversation,
                                       const ChatOptions& options) {
  return DeepSeekRenderer(format, conversation, options).render();
}

}  // namespace shoestring
