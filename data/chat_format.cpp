#include "data/chat_format.h"

#include <fmt/format.h>

#include <array>

#include "data/characters.h"
#include "data/chat_writer.h"
#include "kernels/base/check.h"

namespace shoestring {
namespace {

constexpr std::string_view kThinkOpen = "<think>";
constexpr std::string_view kThinkClose = "</think>";

struct FormatRow {
  ChatFormat format;
  std::string_view name;
};

constexpr std::array<FormatRow, 10> kRows{{{ChatFormat::plain, "plain"},
                                           {ChatFormat::chatml, "chatml"},
                                           {ChatFormat::smollm2, "smollm2"},
                                           {ChatFormat::qwen2_5, "qwen2.5"},
                                           {ChatFormat::sky_t1, "sky_t1"},
                                           {ChatFormat::qwen3, "qwen3"},
                                           {ChatFormat::llama3, "llama3"},
                                           {ChatFormat::deepseek_v3, "deepseek_v3"},
                                           {ChatFormat::deepseek_r1, "deepseek_r1"},
                                           {ChatFormat::deepseek_v3_1, "deepseek_v3.1"}}};

std::string names() {
  std::vector<std::string_view> all;
  for (const FormatRow& row : kRows) all.push_back(row.name);
  return fmt::format("{}", fmt::join(all, ", "));
}

// The reply's end is the end of the document.
std::vector<ChatPiece> render_plain(const Conversation& conversation, const ChatOptions&) {
  if (!conversation.tools.empty()) no_place(ChatFormat::plain, "tools");
  ChatWriter out;
  for (const ChatMessage& message : conversation.messages) {
    if (message.reasoning) no_place(ChatFormat::plain, "reasoning that stands apart");
    if (!message.tool_calls.empty()) no_place(ChatFormat::plain, "calls of tools");
    if (message.role != ChatRole::assistant) {
      out.text(*message.content);
    } else {
      out.reply(message.learned).text(*message.content).end_of_document().end_reply();
    }
  }
  return out.take();
}

}  // namespace

std::string_view name(ChatFormat format) { return kRows.at(static_cast<std::size_t>(format)).name; }

ChatFormat chat_format_named(std::string_view name) {
  for (const FormatRow& row : kRows) {
    if (row.name == name) return row.format;
  }
  fail(ExitCode::usage, "'{}' is no chat format; there are: {}", name, names());
}

std::vector<ChatPiece> render_chat(ChatFormat format, const Conversation& conversation, const ChatOptions& options) {
  check(!conversation.messages.empty(), "a conversation without a message");
  switch (format) {
    case ChatFormat::plain: return render_plain(conversation, options);
    case ChatFormat::llama3: return render_llama3(conversation, options);
    case ChatFormat::deepseek_v3:
    case ChatFormat::deepseek_r1:
    case ChatFormat::deepseek_v3_1: return render_deepseek(format, conversation, options);
    default: return render_chatml(format, conversation, options);
  }
}

std::string chat_text(const std::vector<ChatPiece>& pieces) {
  std::string text;
  for (const ChatPiece& piece : pieces) text += piece.text;
  return text;
}

std::vector<std::string_view> chat_ends(ChatFormat format) {
  switch (format) {
    case ChatFormat::plain: return {};
    case ChatFormat::llama3: return {"<|eot_id|>", "<|eom_id|>"};
    case ChatFormat::deepseek_v3:
    case ChatFormat::deepseek_r1:
    case ChatFormat::deepseek_v3_1: return {"<｜end▁of▁sentence｜>"};
    default: return {"<|im_end|>"};
  }
}

ChatWriter& ChatWriter::with_marks(std::string_view text, std::initializer_list<std::string_view> marks) {
  while (!text.empty()) {
    std::size_t at = std::string_view::npos;
    std::string_view next;
    for (const std::string_view candidate : marks) {
      const std::size_t found = text.find(candidate);
      if (found < at) at = found, next = candidate;
    }
    this->text(text.substr(0, at));
    if (at == std::string_view::npos) break;
    mark(next);
    text.remove_prefix(at + next.size());
  }
  return *this;
}

ChatReply reply_of(const ChatMessage& message) {
  const std::string content = message.content.value_or("");
  if (message.reasoning) return {*message.reasoning, content, true};
  const std::size_t first = content.find(kThinkClose);
  if (first == std::string::npos) return {{}, content, false};
  std::string_view reasoning = without_end(std::string_view(content).substr(0, first), "\n");
  if (const std::size_t open = reasoning.rfind(kThinkOpen); open != std::string_view::npos) {
    reasoning.remove_prefix(open + kThinkOpen.size());
  }
  const std::string_view answer = std::string_view(content).substr(content.rfind(kThinkClose) + kThinkClose.size());
  return {std::string(without_front(reasoning, "\n")), std::string(without_front(answer, "\n")), true};
}

std::string_view without_front(std::string_view text, std::string_view strip) {
  const std::size_t first = text.find_first_not_of(strip);
  return first == std::string_view::npos ? std::string_view() : text.substr(first);
}

std::string_view without_end(std::string_view text, std::string_view strip) {
  return text.substr(0, text.find_last_not_of(strip) + 1);
}

// Besides White_Space, Python strips the separators U+001C to U+001F.
std::string_view trimmed(std::string_view text) {
  const std::uint8_t* kinds = character_kinds();
  std::size_t begin = 0, end = 0;
  bool seen = false;
  for (std::size_t at = 0; at < text.size();) {
    const bool whole = character_bytes(text.substr(at)) > 0;
    const Character here = whole ? character_at(kinds, text, at) : Character{0, at + 1};
    const auto byte = static_cast<unsigned char>(text[at]);
    if ((here.kinds & kind::space) == 0 && (byte < 0x1C || byte > 0x1F)) {
      if (!seen) begin = at;
      seen = true;
      end = here.end;
    }
    at = here.end;
  }
  return text.substr(begin, end - begin);
}

void no_place(ChatFormat format, std::string_view what) {
  fail(ExitCode::bad_data, "the chat format {} has no place for {}; take them out, or choose another format",
       name(format), what);
}

}  // namespace shoestring
