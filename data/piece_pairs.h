// A BPE vocabulary of SentencePiece on byte_pairs.h: the library's ids, without the library, a word at a time through a
// cache.
//
// The library joins characters; here the bytes of each character that is a piece are joined first, and what is left
// of one that is none is spelt in byte pieces, as there. Text is cut before each blank that follows no blank, which
// changes nothing where no piece reaches across such a place.
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
  /// Null where a piece reaches across a place where text is cut. `bytes`: the byte pieces' ids. The scores must be
  /// those of merges in their order: 0, -1, -2, ...
  static std::unique_ptr<PiecePairs> make(const BpePieces& bpe, const std::array<int, 256>& bytes);

  /// Appends the ids of well-formed text without U+2581.
  void encode(std::string_view text, std::vector<std::uint32_t>& ids) const;

 private:
  PiecePairs(BytePairs pairs, std::uint32_t pieces, std::vector<std::vector<std::uint32_t>> fronts)
      : pairs_(std::move(pairs)), pieces_(pieces), fronts_(std::move(fronts)) {}

  BytePairs pairs_;
  std::uint32_t pieces_;                            // ids from here on are fronts of characters
  std::vector<std::vector<std::uint32_t>> fronts_;  // and the byte pieces they are spelt in
  mutable WordCaches caches_;
};

}  // namespace shoestring
