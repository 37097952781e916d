// A BPE vocabulary of SentencePiece on byte_pairs.h: the library's ids, without the library, a word at a time through a
// cache.
//
// The library joins characters; here the bytes of each character that is a piece are joined first, and what is left
// of one that is none is spelt in byte pieces, as there. Text is cut wherever two bytes meet that stand side by side in
// no piece: nothing can be joined across such a place, so what lies between two of them is encoded by itself.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "data/byte_pairs.h"
#include "data/tokenizer_json.h"

namespace shoestring {

/// Immutable and thread-safe.
class PiecePairs {
 public:
  /// Of bytes: which may follow each, as bits.
  using Neighbours = std::array<std::array<std::uint64_t, 4>, 256>;

  /// `bytes`: the byte pieces' ids. The scores must be those of merges in their order: 0, -1, -2, ...
  static std::unique_ptr<PiecePairs> make(const BpePieces& bpe, const std::array<int, 256>& bytes);

  /// Appends the ids of well-formed text without U+2581.
  void encode(std::string_view text, std::vector<std::uint32_t>& ids) const;

 private:
  PiecePairs(BytePairs pairs, const Neighbours& neighbours, std::uint32_t pieces,
             std::vector<std::vector<std::uint32_t>> fronts)
      : pairs_(std::move(pairs)), neighbours_(neighbours), pieces_(pieces), fronts_(std::move(fronts)) {}
  bool are_neighbours(char left, char right) const {
    const auto to = static_cast<std::uint8_t>(right);
    return (neighbours_[static_cast<std::uint8_t>(left)][to / 64] >> to % 64 & 1) != 0;
  }

  BytePairs pairs_;
  Neighbours neighbours_;
  std::uint32_t pieces_;                            // ids from here on are fronts of characters
  std::vector<std::vector<std::uint32_t>> fronts_;  // and the byte pieces they are spelt in
  mutable WordCaches caches_;
};

}  // namespace shoestring
