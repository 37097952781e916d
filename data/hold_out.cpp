#include "data/hold_out.h"

#include <xxhash.h>

#include <algorithm>

#include "kernels/base/random.h"

namespace shoestring {
namespace {

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

void HoldOut::finish(DocumentFates& fates, BuildRanks& ranks) {
  std::int64_t own_bytes = 0;
  std::int64_t trained = 0;
  std::int64_t drawn = 0;
  for (std::int64_t i = 0; i < fates.count(); ++i) {
    const DocumentFate fate = fates[i];
    if (fate.verdict != DocumentVerdict::keep) continue;
    own_bytes += fate.bytes;
    ++(fate.drawn != 0 ? drawn : trained);
  }
  const std::int64_t before = ranks.sum_before(own_bytes);
  const std::int64_t all_bytes = ranks.sum(own_bytes);
  const bool both = ranks.sum(trained) > 0 && ranks.sum(drawn) > 0;
  takes_the_end_ = share_ > 0 && !both;
  std::int64_t left = static_cast<std::int64_t>((1 - share_) * static_cast<double>(all_bytes)) - before;
  border_document_ = left < 0 ? -1 : fates.count();
  for (std::int64_t i = 0; takes_the_end_ && left >= 0 && i < fates.count(); ++i) {
    const DocumentFate fate = fates[i];
    if (fate.verdict != DocumentVerdict::keep) continue;
    if (left < fate.bytes) {
      border_document_ = i;
      border_bytes_ = static_cast<std::size_t>(left);
      break;
    }
    left -= fate.bytes;
  }
}

std::size_t HoldOut::trained_bytes(std::size_t number, std::string_view text) const {
  if (!takes_the_end_) return draws(text) ? 0 : text.size();
  const auto document = static_cast<std::int64_t>(number);
  if (document != border_document_) return document < border_document_ ? text.size() : 0;
  return cut_near(text, std::min(border_bytes_, text.size()));  // shorter: it changed between the passes
}

// The cut lies at the border or at the beginning of its line.
std::size_t HoldOut::surely_trained(std::size_t number, bool drawn, std::size_t begin, std::string_view text) const {
  if (!takes_the_end_) return drawn ? 0 : text.size();
  const auto document = static_cast<std::int64_t>(number);
  if (document != border_document_) return document < border_document_ ? text.size() : 0;
  if (begin + text.size() > border_bytes_) text = text.substr(0, border_bytes_ - std::min(begin, border_bytes_));
  const std::size_t line_end = text.rfind('\n');
  return line_end == std::string_view::npos ? text.size() : line_end + 1;
}

}  // namespace shoestring
