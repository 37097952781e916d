#include "data/tokenizer_sample.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <tuple>

#include "data/hold_out.h"
#include "kernels/base/check.h"
#include "kernels/base/file.h"

namespace shoestring {
namespace {

namespace fs = std::filesystem;

constexpr std::uint32_t kUse = 1;  // of draws; 0 is the hold-out's
constexpr std::size_t kPieceBytes = std::size_t{64} << 10;
constexpr double kWanted = 1.2;  // of what is asked for, since a sample that falls short cannot be made longer
constexpr double kKept = 2.4;

/// A piece as it lies in a file, before its text.
struct Stored {
  double number;
  std::array<std::int64_t, 3> place;  // document, begin, bytes
  std::int64_t text_bytes;
};

}  // namespace

TokenizerSample::TokenizerSample(std::int64_t bytes, std::uint64_t seed)
    : wanted_bytes_(static_cast<std::int64_t>(kWanted * static_cast<double>(bytes))),
      kept_bytes_(static_cast<std::int64_t>(kKept * static_cast<double>(bytes))),
      seed_(seed) {}

// In whole lines where that is possible.
void TokenizerSample::add(std::size_t number, bool drawn, std::string_view text) {
  for (std::size_t begin = 0; begin < text.size();) {
    std::string_view piece = text.substr(begin, kPieceBytes);
    if (begin + piece.size() < text.size()) {
      const std::size_t line_end = piece.rfind('\n');
      if (line_end != std::string_view::npos) piece = piece.substr(0, line_end + 1);
    }
    const double place = draw(piece, seed_, kUse);
    if (place < below_) {
      pieces_.push_back({place, 0, static_cast<std::int64_t>(number), static_cast<std::int64_t>(begin),
                         static_cast<std::int64_t>(piece.size()), std::string(piece), drawn});
      bytes_ += static_cast<std::int64_t>(piece.size());
      if (bytes_ > 2 * kept_bytes_) prune();
    }
    begin += piece.size();
  }
}

// The pieces of the smallest numbers, each once, up to the bytes that are kept.
void TokenizerSample::prune() {
  std::sort(pieces_.begin(), pieces_.end(), [](const Piece& a, const Piece& b) {
    return std::tie(a.number, a.bytes, a.rank, a.document, a.begin) <
           std::tie(b.number, b.bytes, b.rank, b.document, b.begin);
  });
  const auto equal = [](const Piece& a, const Piece& b) { return a.number == b.number && a.bytes == b.bytes; };
  pieces_.erase(std::unique(pieces_.begin(), pieces_.end(), equal), pieces_.end());
  bytes_ = 0;
  for (std::size_t at = 0; at < pieces_.size(); ++at) {
    if (bytes_ >= kept_bytes_) {
      below_ = pieces_[at].number;
      pieces_.resize(at);
      return;
    }
    bytes_ += pieces_[at].bytes;
  }
}

void TokenizerSample::write_pieces(const fs::path& path, const std::vector<Piece>& pieces) {
  FileWriter file(path);
  for (const Piece& piece : pieces) {
    const Stored stored{
        piece.number, {piece.document, piece.begin, piece.bytes}, static_cast<std::int64_t>(piece.text.size())};
    file.write(&stored, sizeof stored);
    file.write(piece.text);
  }
  file.finish();
}

std::vector<TokenizerSample::Piece> TokenizerSample::read_pieces(const fs::path& path, int rank) {
  const FileHandle file = open_for_reading(path);
  std::vector<Piece> pieces;
  for (std::int64_t at = 0, end = file_bytes(file, path); at < end;) {
    Stored stored;
    read_at(file, path, at, &stored, sizeof stored);
    at += static_cast<std::int64_t>(sizeof stored);
    if (stored.text_bytes < 0 || stored.text_bytes > static_cast<std::int64_t>(kPieceBytes)) {
      fail(ExitCode::bad_data, "{}: is damaged; build again", path.string());
    }
    std::string text(static_cast<std::size_t>(stored.text_bytes), '\0');
    read_at(file, path, at, text.data(), stored.text_bytes);
    at += stored.text_bytes;
    const auto [document, begin, bytes] = stored.place;
    pieces.push_back({stored.number, rank, document, begin, bytes, std::move(text), false});
  }
  return pieces;
}

std::vector<std::string> TokenizerSample::take(const Usable& usable, const fs::path& folder, BuildRanks& ranks) {
  prune();
  for (Piece& piece : pieces_) {
    piece.text.resize(usable(static_cast<std::size_t>(piece.document), piece.drawn,
                             static_cast<std::size_t>(piece.begin), piece.text));
  }
  const auto path_of = [&](int rank) { return folder / fmt::format(".sample.{}", rank); };
  if (!ranks.leads()) write_pieces(path_of(ranks.rank()), pieces_);
  ranks.wait_for_all();
  for (int rank = 1; ranks.leads() && rank < ranks.size(); ++rank) {
    std::vector<Piece> others = read_pieces(path_of(rank), rank);
    std::move(others.begin(), others.end(), std::back_inserter(pieces_));
    std::error_code ignored;
    fs::remove(path_of(rank), ignored);
  }
  prune();  // what is kept of all is what one rank would have kept
  std::vector<Piece> chosen;
  std::int64_t bytes = 0;
  for (Piece& piece : pieces_) {
    if (bytes >= wanted_bytes_) break;
    bytes += static_cast<std::int64_t>(piece.text.size());
    if (!piece.text.empty()) chosen.push_back(std::move(piece));
  }
  std::sort(chosen.begin(), chosen.end(), [](const Piece& a, const Piece& b) {
    return std::tie(a.rank, a.document, a.begin) < std::tie(b.rank, b.document, b.begin);
  });
  std::vector<std::string> texts;
  if (!ranks.leads()) return texts;
  for (Piece& piece : chosen) texts.push_back(std::move(piece.text));
  return texts;
}

}  // namespace shoestring
