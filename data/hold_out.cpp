#include "data/hold_out.h"

#include <xxhash.h>

#include <algorithm>

#include "kernels/base/random.h"

namespace shoestring {
namespace {

using Verdict = DuplicateFinder::Verdict;

constexpr std::uint32_t kUse = 0;  // of draws

// Where to cut near `border`: at the beginning of its line unless that doubles what lies behind, else between two
// characters.
std::size_t cut_near(std::string_view text, std::size_t border) {
  const std::size_t line_end = border == 0 ? std::string_view::npos : text.rfind('\n', border - 1);
  if (line_end != std::string_view::npos && border - line_end - 1 <= text.size() - border) return line_end + 1;
  while (border > 0 && border < text.size() && (static_cast<unsigned char>(text[border]) & 0xC0) == 0x80) --border;
  return border;
}

}  // namespace

double draw(std::string_view text, std::uint64_t seed, std::uint32_t use) {
  return Random(seed, Purpose::hold_out, use).uniform(XXH3_64bits(text.data(), text.size()));
}

bool HoldOut::draws(std::string_view text) const { return draw(text, seed_, kUse) < share_; }

void HoldOut::add(bool drawn, std::size_t bytes) {
  drawn_.push_back(drawn);
  bytes_.push_back(static_cast<std::uint32_t>(bytes));
}

void HoldOut::finish(std::span<const Verdict> verdicts) {
  std::uint64_t all_bytes = 0;
  bool any_trained = false;
  bool any_drawn = false;
  for (std::size_t i = 0; i < verdicts.size(); ++i) {
    if (verdicts[i] != Verdict::keep) continue;
    all_bytes += bytes_[i];
    (drawn_[i] ? any_drawn : any_trained) = true;
  }
  takes_the_end_ = share_ > 0 && !(any_trained && any_drawn);
  auto left = static_cast<std::uint64_t>((1 - share_) * static_cast<double>(all_bytes));
  for (std::size_t i = 0; takes_the_end_ && i < verdicts.size(); ++i) {
    if (verdicts[i] != Verdict::keep) continue;
    border_document_ = i;
    border_bytes_ = left;
    if (left < bytes_[i]) break;
    left -= bytes_[i];
  }
  drawn_ = {};
  bytes_ = {};
}

std::size_t HoldOut::trained_bytes(std::size_t number, std::string_view text) const {
  if (!takes_the_end_) return draws(text) ? 0 : text.size();
  if (number != border_document_) return number < border_document_ ? text.size() : 0;
  return cut_near(text, std::min(border_bytes_, text.size()));  // shorter: it changed between the passes
}

}  // namespace shoestring
