#include "data/piece_pairs.h"

#include <algorithm>
#include <map>
#include <utility>

#include "data/characters.h"
#include "kernels/base/check.h"

namespace shoestring {
namespace {

constexpr std::string_view kSpace = "\xE2\x96\x81";  // U+2581

/// Bytes that stand side by side in some piece.
PiecePairs::Neighbours neighbours_in(const BpePieces& bpe) {
  PiecePairs::Neighbours neighbours{};
  for (const BpePieces::Piece& piece : bpe.pieces) {
    if (piece.kind != BpePieces::Kind::text) continue;
    std::string text = piece.text;
    for (std::size_t at = text.find(kSpace); at != std::string::npos; at = text.find(kSpace, at + 1)) {
      text.replace(at, kSpace.size(), " ");
    }
    for (std::size_t i = 1; i < text.size(); ++i) {
      const auto right = static_cast<std::uint8_t>(text[i]);
      neighbours[static_cast<std::uint8_t>(text[i - 1])][right / 64] |= std::uint64_t{1} << right % 64;
    }
  }
  return neighbours;
}

/// Bytes to characters, as merges before all others.
class CharacterMerges {
 public:
  CharacterMerges(const BpePieces& bpe, const std::array<int, 256>& bytes)
      : next_(static_cast<std::uint32_t>(bpe.pieces.size())) {
    for (std::size_t byte = 0; byte < ids_.size(); ++byte) ids_[byte] = static_cast<std::uint32_t>(bytes[byte]);
    spelt_ = ids_;
    for (std::size_t id = 0; id < bpe.pieces.size(); ++id) {
      const BpePieces::Piece& piece = bpe.pieces[id];
      if (piece.kind != BpePieces::Kind::text || character_bytes(piece.text) != piece.text.size()) continue;
      add(piece.text == kSpace ? " " : std::string_view(piece.text), static_cast<std::uint32_t>(id));
    }
  }

  const std::array<std::uint32_t, 256>& ids() const { return ids_; }
  std::vector<BytePairs::Merge> take_merges() { return std::move(merges_); }
  std::vector<std::vector<std::uint32_t>> take_fronts() { return std::move(fronts_); }

 private:
  void add(std::string_view character, std::uint32_t id) {
    if (character.size() == 1) {
      ids_[static_cast<std::uint8_t>(character[0])] = id;
      return;
    }
    std::uint32_t front = spelt_[static_cast<std::uint8_t>(character[0])];
    for (std::size_t at = 1; at < character.size(); ++at) {
      const std::uint32_t byte = spelt_[static_cast<std::uint8_t>(character[at])];
      const bool whole = at + 1 == character.size();
      const auto [known, is_new] = joined_.try_emplace({front, byte}, whole ? id : next_);
      if (is_new) {
        merges_.push_back({front, byte, known->second});
        if (!whole) {
          ++next_;
          fronts_.emplace_back();
          for (const char c : character.substr(0, at + 1)) {
            fronts_.back().push_back(spelt_[static_cast<std::uint8_t>(c)]);
          }
        }
      }
      front = known->second;
    }
  }

  std::array<std::uint32_t, 256> ids_{}, spelt_{};
  std::map<std::pair<std::uint32_t, std::uint32_t>, std::uint32_t> joined_;
  std::vector<BytePairs::Merge> merges_;
  std::vector<std::vector<std::uint32_t>> fronts_;
  std::uint32_t next_;
};

}  // namespace

std::unique_ptr<PiecePairs> PiecePairs::make(const BpePieces& bpe, const std::array<int, 256>& bytes) {
  CharacterMerges characters(bpe, bytes);
  std::vector<BytePairs::Merge> merges = characters.take_merges();
  std::size_t before = bpe.pieces.size();
  for (const PieceMerge& merge : merges_of(bpe)) {
    merges.push_back({static_cast<std::uint32_t>(merge.left), static_cast<std::uint32_t>(merge.right),
                      static_cast<std::uint32_t>(merge.merged), merge.merged == before});
    before = merge.merged;
  }
  return std::unique_ptr<PiecePairs>(new PiecePairs(BytePairs(characters.ids(), merges), neighbours_in(bpe),
                                                    static_cast<std::uint32_t>(bpe.pieces.size()),
                                                    characters.take_fronts()));
}

void PiecePairs::encode(std::string_view text, std::vector<std::uint32_t>& ids) const {
  const WordCaches::Lease cache(caches_);
  const std::size_t first = ids.size();
  for (std::size_t at = 0; at < text.size();) {
    std::size_t end = at + 1;
    while (end < text.size() && are_neighbours(text[end - 1], text[end])) ++end;
    if (end == at + 1) {
      ids.push_back(pairs_.id_of(text[at]));
    } else {
      pairs_.encode(text.substr(at, end - at), *cache, ids);
    }
    at = end;
  }
  const auto is_front = [&](std::uint32_t id) { return id >= pieces_; };
  auto front = std::find_if(ids.begin() + static_cast<std::ptrdiff_t>(first), ids.end(), is_front);
  if (front == ids.end()) return;
  const std::vector<std::uint32_t> rest(front, ids.end());
  ids.erase(front, ids.end());
  for (const std::uint32_t id : rest) {
    if (!is_front(id)) {
      ids.push_back(id);
      continue;
    }
    const std::vector<std::uint32_t>& bytes = fronts_[id - pieces_];
    ids.insert(ids.end(), bytes.begin(), bytes.end());
  }
}

}  // namespace shoestring
