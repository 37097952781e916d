#include "data/tokenizer_added.h"

#include <array>

#include "data/characters.h"
#include "data/tokenizer.h"

namespace shoestring {
namespace {

bool continues(char byte) { return (static_cast<unsigned char>(byte) & 0xC0) == 0x80; }

/// What the library's \w has, where \p{Pc} is the low line alone.
bool is_word(std::string_view text, std::size_t at) {
  return (character_at(character_kinds(), text, at).kinds & (kind::letter | kind::number | kind::mark)) != 0 ||
         text[at] == '_';
}

bool is_space(std::string_view text, std::size_t at) {
  return (character_at(character_kinds(), text, at).kinds & kind::space) != 0;
}

/// Where the character begins that ends before `end`.
std::size_t before(std::string_view text, std::size_t end) {
  do --end;
  while (end > 0 && continues(text[end]));
  return end;
}

const AddedToken* token_at(std::string_view text, const std::vector<AddedToken>& tokens, bool normalized) {
  const AddedToken* longest = nullptr;
  for (const AddedToken& token : tokens) {
    if (token.normalized != normalized || !text.starts_with(token.content)) continue;
    if (longest == nullptr || token.content.size() > longest->content.size()) longest = &token;
  }
  return longest;
}

bool stands_alone(std::string_view text, std::size_t begin, std::size_t end) {
  return (begin == 0 || !is_word(text, before(text, begin))) && (end == text.size() || !is_word(text, end));
}

}  // namespace

std::vector<AddedPiece> added_pieces(std::string_view text, const std::vector<AddedToken>& tokens, bool normalized) {
  std::array<bool, 256> begins{};
  for (const AddedToken& token : tokens) begins[static_cast<unsigned char>(token.content[0])] = true;
  std::vector<AddedPiece> pieces;
  std::size_t done = 0;
  for (std::size_t at = 0; at < text.size();) {
    const AddedToken* token =
        begins[static_cast<unsigned char>(text[at])] ? token_at(text.substr(at), tokens, normalized) : nullptr;
    if (token == nullptr) {
      ++at;
      continue;
    }
    std::size_t begin = at, end = at + token->content.size();
    at = end;  // also where it does not count: what it covers is not looked at again
    if (token->single_word && !stands_alone(text, begin, end)) continue;
    if (token->lstrip)
      while (begin > done && is_space(text, before(text, begin))) begin = before(text, begin);
    if (token->rstrip)
      while (end < text.size() && is_space(text, end)) end = character_at(character_kinds(), text, end).end;
    // One that begins within the white space that the token before took along is taken all the same.
    if (begin > done) pieces.push_back({nullptr, text.substr(done, begin - done)});
    pieces.push_back({token, text.substr(begin, end - begin)});
    done = end;
  }
  if (done < text.size()) pieces.push_back({nullptr, text.substr(done)});
  return pieces;
}

void encode_with_added(const Tokenizer& tokenizer, std::string_view text, const std::vector<AddedToken>& tokens,
                       std::vector<std::uint32_t>& ids, std::string (*normal)(std::string_view text)) {
  while (!text.empty()) {
    const std::size_t plain = well_formed_bytes(text);
    for (const AddedPiece& piece : added_pieces(text.substr(0, plain), tokens, false)) {
      if (piece.token != nullptr) {
        ids.push_back(piece.token->id);
        continue;
      }
      const std::string form = normal != nullptr ? normal(piece.text) : std::string(piece.text);
      for (const AddedPiece& inner : added_pieces(form, tokens, true)) {
        inner.token != nullptr ? ids.push_back(inner.token->id) : tokenizer.encode(inner.text, ids);
      }
    }
    if (plain == text.size()) return;
    tokenizer.encode(text.substr(plain, 1), ids);
    text.remove_prefix(plain + 1);
  }
}

}  // namespace shoestring
