#include "core/generation/text_stream.h"

#include <algorithm>
#include <span>
#include <utility>

#include "kernels/base/check.h"

namespace shoestring {
namespace {

/// Bytes of the character that `lead` begins; 1 for a byte that begins none of several.
std::size_t character_bytes(unsigned char lead) {
  if (lead >= 0xC2 && lead <= 0xDF) return 2;
  if (lead >= 0xE0 && lead <= 0xEF) return 3;
  return lead >= 0xF0 && lead <= 0xF4 ? 4 : 1;
}

/// Length of the longest end of `text` that is a beginning of `stop`, but not all of it.
std::size_t beginning_of(std::string_view stop, std::string_view text) {
  for (std::size_t length = std::min(stop.size() - 1, text.size()); length > 0; --length) {
    if (text.ends_with(stop.substr(0, length))) return length;
  }
  return 0;
}

}  // namespace

std::size_t unfinished_bytes(std::string_view text) {
  for (std::size_t back = 1; back <= std::min<std::size_t>(3, text.size()); ++back) {
    const auto byte = static_cast<unsigned char>(text[text.size() - back]);
    if ((byte & 0xC0) == 0x80) continue;  // goes on with a character
    return character_bytes(byte) > back ? back : 0;
  }
  return 0;
}

TextStream::TextStream(const Tokenizer& tokenizer, std::vector<std::string> stops)
    : tokenizer_(tokenizer), stops_(std::move(stops)) {
  for (const std::string& stop : stops_) check(!stop.empty(), "an empty stop text ends everything");
}

std::string TextStream::add(std::int32_t id) {
  if (stopped_) return {};
  pending_ += tokenizer_.decode(std::span(&id, 1));
  std::size_t end = std::string::npos;
  std::size_t kept = unfinished_bytes(pending_);
  for (const std::string& stop : stops_) {
    end = std::min(end, pending_.find(stop));
    kept = std::max(kept, beginning_of(stop, pending_));
  }
  stopped_ = end != std::string::npos;
  std::string shown = pending_.substr(0, stopped_ ? end : pending_.size() - kept);
  pending_ = stopped_ ? std::string() : pending_.substr(shown.size());
  return shown;
}

std::string TextStream::finish() { return std::exchange(pending_, {}); }

}  // namespace shoestring
