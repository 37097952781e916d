// Internal to the chat formats: pieces as they grow.
#pragma once

#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "data/chat_format.h"

namespace shoestring {

class ChatWriter {
 public:
  ChatWriter& text(std::string_view text) {
    if (text.empty()) return *this;
    if (begins_ || pieces_.empty() || pieces_.back().kind != ChatPiece::Kind::text ||
        pieces_.back().learned != learned_) {
      return put(ChatPiece::Kind::text, text);
    }
    pieces_.back().text += text;
    return *this;
  }
  ChatWriter& token(std::string_view text) { return put(ChatPiece::Kind::token, text); }
  ChatWriter& mark(std::string_view text) { return put(ChatPiece::Kind::mark, text); }
  ChatWriter& end_of_document() { return put(ChatPiece::Kind::end_of_document, {}); }
  /// A text of the format's own with marks in it.
  ChatWriter& with_marks(std::string_view text, std::initializer_list<std::string_view> marks);

  /// What follows is a reply, until `end_reply`.
  ChatWriter& reply(bool learned) {
    learned_ = learned;
    begins_ = true;
    return *this;
  }
  ChatWriter& end_reply() {
    learned_ = begins_ = false;
    return *this;
  }

  std::vector<ChatPiece> take() { return std::move(pieces_); }

 private:
  ChatWriter& put(ChatPiece::Kind kind, std::string_view text) {
    pieces_.push_back({kind, std::string(text), learned_, begins_});
    begins_ = false;
    return *this;
  }

  std::vector<ChatPiece> pieces_;
  bool learned_ = false;
  bool begins_ = false;
};

/// A reply taken apart: what stands before the last </think> of its content, if there is one, is reasoning.
struct ChatReply {
  std::string reasoning;
  std::string content;
  bool reasons = false;
};
ChatReply reply_of(const ChatMessage& message);

/// Without the characters `strip` at the front, the end, or both.
std::string_view without_front(std::string_view text, std::string_view strip);
std::string_view without_end(std::string_view text, std::string_view strip);
/// As Python's str.strip(): without white space, of Unicode too.
std::string_view trimmed(std::string_view text);

/// Throws Error(bad_data): the format has no place for `what`.
[[noreturn]] void no_place(ChatFormat format, std::string_view what);

// One for each kind of template.
std::vector<ChatPiece> render_chatml(ChatFormat format, const Conversation& conversation, const ChatOptions& options);
std::vector<ChatPiece> render_llama3(const Conversation& conversation, const ChatOptions& options);
std::vector<ChatPiece> render_deepseek(ChatFormat format, const Conversation& conversation, const ChatOptions& options);

}  // namespace shoestring
