// Which text is held out for validation: a function of the texts, their order, a share and a seed.
//
// Whole documents, each by a draw on its content: whatever its name or place, and whatever stands beside it. Where that
// leaves one side with nothing, as with a single file, it is the last share of the text instead: the last documents,
// and of the one in which the border lies the lines behind it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "data/build_ranks.h"
#include "data/document_fates.h"

namespace shoestring {

/// A number in [0, 1) that belongs to a text, whatever its name and place; another one for another use.
double draw(std::string_view text, std::uint64_t seed, std::uint32_t use);

class HoldOut {
 public:
  HoldOut(double share, std::uint64_t seed) : share_(share), seed_(seed) {}

  bool draws(std::string_view text) const;
  /// After the first pass: this rank's documents that are kept are split, with those of the ranks before and behind.
  void finish(DocumentFates& fates, BuildRanks& ranks);

  /// How much of the document's front is trained on: all of it, nothing, or up to the border.
  std::size_t trained_bytes(std::size_t number, std::string_view text) const;
  /// How much of bytes [begin, begin + text) of a document is certain to be trained on, the rest of it not being at
  /// hand: for a tokenizer's sample.
  std::size_t surely_trained(std::size_t number, bool drawn, std::size_t begin, std::string_view text) const;
  /// Whether the end of the text is held out rather than documents.
  bool takes_the_end() const { return takes_the_end_; }

 private:
  double share_;
  std::uint64_t seed_;
  bool takes_the_end_ = false;
  // Where the text's end begins: a document of this rank, -1 in an earlier rank's, the number of all in a later one's.
  std::int64_t border_document_ = 0;
  std::size_t border_bytes_ = 0;  // of that document that come before
};

}  // namespace shoestring
