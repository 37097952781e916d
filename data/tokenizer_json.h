// Tokenizers in the form of Hugging Face's library `tokenizers`: the files tokenizer.json and tokenizer_config.json
// that lie in a checkpoint beside the file that defines the tokenizer here. Readers need no other library for them.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace shoestring {

/// Name and content.
using TokenizerFiles = std::vector<std::pair<std::string, std::string>>;

/// An id is a byte; behind those the special ids, in order. The first of them ends a document.
TokenizerFiles byte_tokenizer_files(std::span<const char* const> specials);

/// A BPE vocabulary as SentencePiece keeps it.
struct BpePieces {
  enum class Kind : std::uint8_t { text, byte, special };
  struct Piece {
    std::string text;  ///< U+2581 for a space, <0x0A> for a byte
    float score = 0;   ///< the higher, the earlier it is merged
    Kind kind = Kind::text;
  };
  std::vector<Piece> pieces;  ///< by id
  std::int32_t unknown = 0;
  std::int32_t end_of_document = 0;
  bool has_space = true;  ///< a piece for U+2581: spaces become that
};

/// Two pieces, by id, that together are a third.
struct PieceMerge {
  std::size_t left = 0, right = 0, merged = 0;
};
/// All there are, by the third's score, the highest first.
std::vector<PieceMerge> merges_of(const BpePieces& bpe);

/// With byte fallback and no change to the text. Two pieces merge where together they are a third, in the order of the
/// third's score.
TokenizerFiles bpe_tokenizer_files(const BpePieces& bpe);

}  // namespace shoestring
