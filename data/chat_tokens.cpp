#include "data/chat_tokens.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "kernels/base/check.h"

namespace shoestring {
namespace {

// Ids between control tokens are decoded together: a character may lie in more than one.
std::string text_with_controls(std::span<const std::int32_t> ids, const Tokenizer& tokenizer) {
  std::string text;
  for (std::size_t from = 0; from < ids.size();) {
    std::size_t to = from;
    std::string control;
    while (to < ids.size() && (control = tokenizer.control_text(ids[to])).empty()) ++to;
    text += tokenizer.decode(ids.subspan(from, to - from)) + control;
    from = to + 1;
  }
  return text;
}

// The id of a piece that is a token; -1 where it is text.
std::int32_t control_of(const ChatPiece& piece, const Tokenizer& tokenizer) {
  if (piece.kind == ChatPiece::Kind::text) return -1;
  if (piece.kind == ChatPiece::Kind::end_of_document) return tokenizer.special().end_of_document;
  const std::int32_t control = tokenizer.control_id(piece.text);
  if (control < 0 && piece.kind == ChatPiece::Kind::token) {
    fail(ExitCode::bad_data, "{}: the tokenizer has no token {}, which the chat format writes; name another format",
         tokenizer.file_name(), piece.text);
  }
  return control;
}

}  // namespace

std::int64_t ChatTokens::learned_tokens() const {
  return std::accumulate(learned.begin(), learned.end(), std::int64_t{0});
}

ChatTokens encode_chat(const std::vector<ChatPiece>& pieces, const Tokenizer& tokenizer) {
  ChatTokens out;
  std::string text;  // of pieces that are encoded together
  bool learned = false;
  const auto flush = [&] {
    tokenizer.encode(text, out.ids);
    out.learned.resize(out.ids.size(), learned ? 1 : 0);
    text.clear();
  };
  for (const ChatPiece& piece : pieces) {
    const std::int32_t control = control_of(piece, tokenizer);
    if (control >= 0 || piece.begins_reply || piece.learned != learned) flush();
    learned = piece.learned;
    text += piece.text;
    if (control < 0) continue;
    out.ids.push_back(static_cast<std::uint32_t>(control));
    out.learned.push_back(learned ? 1 : 0);
    text.clear();
  }
  flush();
  return out;
}

std::vector<std::int32_t> chat_end_ids(ChatFormat format, const Tokenizer& tokenizer) {
  std::vector<std::int32_t> ids{tokenizer.special().end_of_document};
  for (const std::string_view end : chat_ends(format)) {
    const std::int32_t id = tokenizer.control_id(end);
    if (id >= 0 && std::find(ids.begin(), ids.end(), id) == ids.end()) ids.push_back(id);
  }
  return ids;
}

std::string marked_text(std::span<const std::int32_t> ids, std::span<const std::uint8_t> learned,
                        const Tokenizer& tokenizer, std::string_view begin, std::string_view end) {
  check(ids.size() == learned.size(), "{} ids, {} flags", ids.size(), learned.size());
  std::string text;
  for (std::size_t at = 0; at < ids.size();) {
    std::size_t until = at + 1;
    while (until < ids.size() && learned[until] == learned[at]) ++until;
    if (learned[at] != 0) text += begin;
    text += text_with_controls(ids.subspan(at, until - at), tokenizer);
    if (learned[at] != 0) text += end;
    at = until;
  }
  return text;
}

}  // namespace shoestring
