// A conversation with a model: what was said, and the reply to what is said next.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/generation/generator.h"
#include "core/generation/open_model.h"
#include "data/chat_format.h"

namespace shoestring {

struct ChatSettings {
  ChatFormat format = ChatFormat::plain;
  std::string system;  ///< empty: none, or the format's own
  std::optional<bool> thinking{};
  SamplingSettings sampling{};
  std::int64_t most_tokens = 1024;  ///< of a reply
  std::uint64_t seed = 1;           ///< replies have seeds that follow each other
};

class ChatSession {
 public:
  /// Borrows `model`, slot 0 of which it uses: what a reply adds to the conversation is read once. Throws Error(usage)
  /// for a system message beside which no message has room, and for `thinking` where the format leaves no choice.
  ChatSession(OpenModel& model, ChatSettings settings);

  struct Reply {
    std::string text;  ///< all that was shown
    GenerationEnd end = GenerationEnd::length;
    std::int64_t tokens = 0;
    std::size_t forgotten = 0;  ///< messages at the beginning that had no room beside the reply
  };
  /// `show` is given the reply as it comes, in whole characters; false ends it there, and what there is of it becomes
  /// part of the conversation. Throws Error(usage) for a message that alone has no room; the conversation then is what
  /// it was.
  Reply answer(std::string_view message, const std::function<bool(std::string_view piece)>& show);

  /// Begins anew.
  void forget();
  const Conversation& conversation() const { return conversation_; }

 private:
  void check_thinking() const;
  void check_system();
  std::vector<std::int32_t> prompt() const;
  std::int64_t prompt_room() const;  ///< tokens, beside a reply
  std::vector<std::int32_t> prompt_with_room(std::size_t& forgotten);

  OpenModel& model_;
  ChatSettings settings_;
  Generator generator_;
  std::vector<std::int32_t> stop_ids_;
  Conversation conversation_;
  std::uint64_t replies_ = 0;
};

}  // namespace shoestring
