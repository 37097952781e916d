#include "data/sample_ledger.h"

#include "kernels/base/check.h"

namespace shoestring {

void SampleLedger::add(const std::vector<Piece>& pieces) {
  for (const Piece& piece : pieces) {
    check(piece.begin + piece.length <= static_cast<std::uint64_t>(tokens_), "piece [{}, +{}) of {} tokens",
          piece.begin, piece.length, tokens_);
    for (std::uint64_t token = piece.begin; token < piece.begin + piece.length; ++token) {
      std::uint64_t& word = bits_[token / 64];
      const std::uint64_t bit = std::uint64_t{1} << token % 64;
      (word & bit) != 0 ? ++repeated_ : ++seen_;
      word |= bit;
    }
  }
}

}  // namespace shoestring
