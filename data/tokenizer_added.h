// Added tokens (tokenizer.json's added_tokens) where a text spells them, as the library `tokenizers` finds them: for
// prompts. Texts of corpora and messages of conversations never become one.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace shoestring {

class Tokenizer;

struct AddedToken {
  std::uint32_t id = 0;
  std::string content;       ///< not empty
  bool special = false;      ///< is no text: decoding leaves it out
  bool normalized = false;   ///< is looked for behind the tokenizer's normaliser, not in front of it
  bool lstrip = false;       ///< takes the white space in front of it along
  bool rstrip = false;       ///< and that behind it
  bool single_word = false;  ///< only where no letter, digit or mark touches it
};

/// A piece of a text: a token, or the text between tokens where `token` is nullptr.
struct AddedPiece {
  const AddedToken* token = nullptr;
  std::string_view text;
};

/// The pieces of well-formed `text`, in order and without empty ones. The leftmost token is taken, of those that begin
/// together the longest. Looked for are the tokens of `tokens` that have `normalized`. Views point into both arguments.
std::vector<AddedPiece> added_pieces(std::string_view text, const std::vector<AddedToken>& tokens, bool normalized);

/// Appends the ids of `text`, any bytes, as Tokenizer::encode_prompt has them: first the tokens are taken that are
/// looked for in the text itself, then the others in what `normal` makes of well-formed text between, which is left as
/// it is where there is none; what stands between them `tokenizer` encodes.
void encode_with_added(const Tokenizer& tokenizer, std::string_view text, const std::vector<AddedToken>& tokens,
                       std::vector<std::uint32_t>& ids, std::string (*normal)(std::string_view text) = nullptr);

}  // namespace shoestring
