// Rendered conversations as token ids, and as people look at them.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "data/chat_format.h"
#include "data/tokenizer.h"

namespace shoestring {

struct ChatTokens {
  std::vector<std::uint32_t> ids;
  std::vector<std::uint8_t> learned;  ///< [ids] 1: to be predicted, 0: only read
  std::int64_t learned_tokens() const;
};

/// Piece by piece: text is encoded as text, tokens become their ids. Throws Error(bad_data) naming a control token that
/// the tokenizer has not.
ChatTokens encode_chat(const std::vector<ChatPiece>& pieces, const Tokenizer& tokenizer);

/// The ids that end a reply: the format's own and the end of a document.
std::vector<std::int32_t> chat_end_ids(ChatFormat format, const Tokenizer& tokenizer);

/// How people see what is learned.
inline constexpr std::string_view kLearnedBegin = "\u27E6";
inline constexpr std::string_view kLearnedEnd = "\u27E7";

/// Text of the ids, control tokens as they are written, what is learned between `begin` and `end`.
std::string marked_text(std::span<const std::int32_t> ids, std::span<const std::uint8_t> learned,
                        const Tokenizer& tokenizer, std::string_view begin, std::string_view end);

}  // namespace shoestring
