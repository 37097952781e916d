// What a tokenizer is trained on: pieces of text drawn from all over the corpus, the same ones whoever reads which
// part.
//
// Each piece of at most 64 KiB has a number drawn from its content; the sample is the usable pieces of the smallest
// numbers, in the order of the text. While the text is read it is not known yet what of it will be dropped or held
// out, so twice as much is kept in memory as will be used; of pieces that are equal the first is.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "data/build_ranks.h"

namespace shoestring {

class TokenizerSample {
 public:
  /// `bytes`: how much is wanted; a little more is given.
  TokenizerSample(std::int64_t bytes, std::uint64_t seed);

  /// The next document of this rank; `drawn`: as HoldOut::draws says.
  void add(std::size_t number, bool drawn, std::string_view text);

  /// After the last: how many bytes of a piece's front may be used.
  using Usable = std::function<std::size_t(std::size_t document, bool drawn, std::size_t begin, std::string_view text)>;
  /// The sample of all ranks, in order, on rank 0; nothing elsewhere. Files go to `folder`, and are removed.
  std::vector<std::string> take(const Usable& usable, const std::filesystem::path& folder, BuildRanks& ranks);

 private:
  struct Piece {
    double number = 0;
    std::int64_t rank = 0;
    std::int64_t document = 0;  // of the rank
    std::int64_t begin = 0;     // byte of it
    std::int64_t bytes = 0;
    std::string text;
    bool drawn = false;
  };
  void prune();
  static std::vector<Piece> read_pieces(const std::filesystem::path& path, int rank);
  static void write_pieces(const std::filesystem::path& path, const std::vector<Piece>& pieces);

  std::int64_t wanted_bytes_;
  std::int64_t kept_bytes_;
  std::uint64_t seed_;
  std::vector<Piece> pieces_;
  std::int64_t bytes_ = 0;
  double below_ = 1;  // pieces from this number on are too many
};

}  // namespace shoestring
