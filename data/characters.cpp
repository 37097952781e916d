#include "data/characters.h"

#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <vector>

#include "kernels/base/check.h"

namespace shoestring {
namespace {

constexpr std::int32_t kCodePoints = 0x110000;

constexpr std::array<std::pair<std::int32_t, std::int32_t>, 10> kWhiteSpace = {{{0x09, 0x0D},
                                                                                {0x20, 0x20},
                                                                                {0x85, 0x85},
                                                                                {0xA0, 0xA0},
                                                                                {0x1680, 0x1680},
                                                                                {0x2000, 0x200A},
                                                                                {0x2028, 0x2029},
                                                                                {0x202F, 0x202F},
                                                                                {0x205F, 0x205F},
                                                                                {0x3000, 0x3000}}};

std::uint8_t category_kind(std::int32_t code) {
  switch (utf8proc_category(code)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO: return kind::letter;
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME: return kind::mark;
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_NO: return kind::number;
    case UTF8PROC_CATEGORY_PC:
    case UTF8PROC_CATEGORY_PD:
    case UTF8PROC_CATEGORY_PS:
    case UTF8PROC_CATEGORY_PE:
    case UTF8PROC_CATEGORY_PI:
    case UTF8PROC_CATEGORY_PF:
    case UTF8PROC_CATEGORY_PO:
    case UTF8PROC_CATEGORY_SM:
    case UTF8PROC_CATEGORY_SC:
    case UTF8PROC_CATEGORY_SK:
    case UTF8PROC_CATEGORY_SO: return kind::sign;
    default: return 0;
  }
}

// Is moved or joined with what stands before it, or is replaced when it stands alone.
bool unsteady(std::int32_t code) {
  constexpr std::uint16_t kNone = std::numeric_limits<std::uint16_t>::max();
  const utf8proc_property_t& property = *utf8proc_get_property(code);
  const bool hangul_part = code >= 0x1161 && code <= 0x11C2;
  if (property.combining_class != 0 || property.comb_index != kNone || hangul_part) return code >= 0x300;
  if (property.decomp_seqindex == kNone || property.decomp_type != 0) return false;
  std::array<utf8proc_uint8_t, 5> character{};
  utf8proc_encode_char(code, character.data());
  const std::unique_ptr<utf8proc_uint8_t, decltype(&std::free)> form(utf8proc_NFC(character.data()), &std::free);
  return form == nullptr ||
         std::strcmp(reinterpret_cast<const char*>(form.get()), reinterpret_cast<const char*>(character.data())) != 0;
}

std::vector<std::uint8_t> make_kinds() {
  std::vector<std::uint8_t> kinds(kCodePoints);
  for (std::int32_t code = 0; code < kCodePoints; ++code) {
    std::uint8_t bits = category_kind(code);
    const bool kana = code >= 0x3040 && code <= 0x30FF;
    if (kana || (code >= 0x4E00 && code <= 0x9FA5)) bits |= kind::unified;
    if (unsteady(code)) bits |= kind::unsteady;
    kinds[static_cast<std::size_t>(code)] = bits;
  }
  for (const auto& [first, last] : kWhiteSpace) {
    for (std::int32_t code = first; code <= last; ++code) kinds[static_cast<std::size_t>(code)] |= kind::space;
  }
  for (const char end : {'\r', '\n'}) kinds[static_cast<std::size_t>(end)] |= kind::line_end;
  return kinds;
}

void append_nfc(std::string_view text, std::string& out) {
  if (text.empty()) return;
  utf8proc_uint8_t* form = nullptr;
  const auto options = static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE);
  const utf8proc_ssize_t bytes = utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
                                              static_cast<utf8proc_ssize_t>(text.size()), &form, options);
  const std::unique_ptr<utf8proc_uint8_t, decltype(&std::free)> owner(form, &std::free);
  if (bytes == UTF8PROC_ERROR_NOMEM) throw std::bad_alloc();
  check(bytes >= 0, "utf8proc refuses well-formed text of {} bytes: {}", text.size(), utf8proc_errmsg(bytes));
  out.append(reinterpret_cast<const char*>(form), static_cast<std::size_t>(bytes));
}

// How many bytes at the front are ASCII, give or take what a word holds.
std::size_t plain_words(std::string_view text) {
  std::size_t at = 0;
  for (std::uint64_t word = 0; at + sizeof word <= text.size(); at += sizeof word) {
    std::memcpy(&word, text.data() + at, sizeof word);
    if ((word & 0x8080808080808080) != 0) break;
  }
  return at;
}

}  // namespace

std::size_t character_bytes(std::string_view text) {
  const auto byte = [&](std::size_t i) { return static_cast<std::uint8_t>(text[i]); };
  const auto follows = [&](std::size_t i) { return i < text.size() && (byte(i) & 0xC0) == 0x80; };
  const std::uint8_t lead = byte(0);
  if (lead < 0x80) return 1;
  if (lead >= 0xC2 && lead <= 0xDF) return follows(1) ? 2 : 0;
  if (lead >= 0xE0 && lead <= 0xEF) {
    if (!follows(1) || !follows(2)) return 0;
    if (lead == 0xE0 && byte(1) < 0xA0) return 0;   // overlong
    if (lead == 0xED && byte(1) >= 0xA0) return 0;  // surrogate
    return 3;
  }
  if (lead >= 0xF0 && lead <= 0xF4) {
    if (!follows(1) || !follows(2) || !follows(3)) return 0;
    if (lead == 0xF0 && byte(1) < 0x90) return 0;
    if (lead == 0xF4 && byte(1) >= 0x90) return 0;
    return 4;
  }
  return 0;
}

std::size_t well_formed_bytes(std::string_view text) {
  std::size_t at = plain_words(text);
  while (at < text.size()) {
    const std::size_t bytes = character_bytes(text.substr(at));
    if (bytes == 0) break;
    at += bytes;
    if (bytes == 1) at += plain_words(text.substr(at));
  }
  return at;
}

const std::uint8_t* character_kinds() {
  static const std::vector<std::uint8_t> kinds = make_kinds();
  return kinds.data();
}

bool may_change_in_nfc(std::string_view text) {
  const std::uint8_t* kinds = character_kinds();
  for (std::size_t at = plain_words(text); at < text.size();) {
    const Character character = character_at(kinds, text, at);
    if ((character.kinds & kind::unsteady) != 0) return true;
    at = character.end;
  }
  return false;
}

// U+11A7 joins with nothing (Unicode 3.12: it is the place before the first trailing consonant), but utf8proc 2.8 lets
// a syllable before it swallow it: it is set aside.
std::string to_nfc(std::string_view text) {
  constexpr std::string_view kAlone = "\u11A7";
  std::string form;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t alone = std::min(text.find(kAlone, at), text.size());
    append_nfc(text.substr(at, alone - at), form);
    if (alone < text.size()) form += kAlone;
    at = alone + kAlone.size();
  }
  return form;
}

}  // namespace shoestring
