#include "data/text_split.h"

#include <array>
#include <cstdint>

#include "data/characters.h"

namespace shoestring {

namespace patterns {
const std::string_view gpt2 = R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
const std::string_view llama3 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
const std::string_view qwen2 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
const std::string_view three_digits = R"(\p{N}{1,3})";
const std::string_view unified = "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+";
const std::string_view deepseek =
    R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
}  // namespace patterns

namespace {

/// What the scanners share: runs of kinds.
class Scanner : public TextSplit {
 protected:
  Character at(std::string_view text, std::size_t place) const { return character_at(kinds_, text, place); }
  /// The end of the longest run from `place` on of characters with one of `wanted`; of characters with none of
  /// `unwanted`.
  std::size_t run_of(std::string_view text, std::size_t place, std::uint8_t wanted) const {
    while (place < text.size()) {
      const Character next = at(text, place);
      if ((next.kinds & wanted) == 0) break;
      place = next.end;
    }
    return place;
  }
  std::size_t run_without(std::string_view text, std::size_t place, std::uint8_t unwanted) const {
    while (place < text.size()) {
      const Character next = at(text, place);
      if ((next.kinds & unwanted) != 0) break;
      place = next.end;
    }
    return place;
  }
  // \s*[\r\n]+|\s+(?!\S)|\s+ at a blank: through the run's last line end; else the whole run where it ends the text;
  // else all but its last character, which belongs to the word behind it, unless it is the only one. Without
  // `line_ends` the first of the three is not there.
  std::size_t blanks(std::string_view text, std::size_t place, bool line_ends) const {
    std::size_t end = place, last = place, behind_line = place;
    while (end < text.size()) {
      const Character next = at(text, end);
      if ((next.kinds & kind::space) == 0) break;
      last = end;
      end = next.end;
      if ((next.kinds & kind::line_end) != 0) behind_line = end;
    }
    if (line_ends && behind_line > place) return behind_line;
    return end == text.size() || last == place ? end : last;
  }

 private:
  const std::uint8_t* kinds_ = character_kinds();
};

// 's|'t|'re|'ve|'m|'ll|'d at an apostrophe; 0 where there is none of them. Whatever the case, U+017F is an s too.
std::size_t contraction_end(std::string_view text, std::size_t place, bool any_case) {
  constexpr std::array<std::string_view, 7> kEndings = {"s", "t", "re", "ve", "m", "ll", "d"};
  const std::string_view rest = text.substr(place + 1, 2);
  const auto lower = [&](char c) { return any_case && c >= 'A' && c <= 'Z' ? static_cast<char>(c | 0x20) : c; };
  for (const std::string_view ending : kEndings) {
    std::size_t same = 0;
    while (same < ending.size() && same < rest.size() && lower(rest[same]) == ending[same]) ++same;
    if (same == ending.size()) return place + 1 + same;
  }
  return any_case && rest == "\u017F" ? place + 3 : 0;
}

class Gpt2Split : public Scanner {
 public:
  std::size_t piece_end(std::string_view text, std::size_t place) const override {
    constexpr std::uint8_t kWord = kind::space | kind::letter | kind::number;
    if (text[place] == '\'') {
      if (const std::size_t end = contraction_end(text, place, false)) return end;
    }
    const std::size_t word = text[place] == ' ' && place + 1 < text.size() ? place + 1 : place;
    const Character first = at(text, word);
    if ((first.kinds & kind::letter) != 0) return run_of(text, first.end, kind::letter);
    if ((first.kinds & kind::number) != 0) return run_of(text, first.end, kind::number);
    if ((first.kinds & kind::space) == 0) return run_without(text, first.end, kWord);
    return blanks(text, place, false);
  }
};

/// Llama 3's and Qwen2's.
class LettersSplit : public Scanner {
 public:
  explicit LettersSplit(int digits) : digits_(digits) {}

  std::size_t piece_end(std::string_view text, std::size_t place) const override {
    constexpr std::uint8_t kWord = kind::space | kind::letter | kind::number;
    const Character first = at(text, place);
    if ((first.kinds & kind::letter) != 0) return run_of(text, first.end, kind::letter);
    if ((first.kinds & kind::number) != 0) return digits_end(text, first.end);
    if (text[place] == '\'') {
      if (const std::size_t end = contraction_end(text, place, true)) return end;
    }
    const Character second = first.end < text.size() ? at(text, first.end) : Character{kind::space, first.end};
    if ((first.kinds & kind::line_end) == 0 && (second.kinds & kind::letter) != 0) {
      return run_of(text, second.end, kind::letter);
    }
    const bool spaced = text[place] == ' ' && (second.kinds & kWord) == 0;
    if (!spaced && (first.kinds & kind::space) != 0) return blanks(text, place, true);
    return run_of(text, run_without(text, first.end, kWord), kind::line_end);
  }

 private:
  std::size_t digits_end(std::string_view text, std::size_t end) const {
    for (int i = 1; i < digits_ && end < text.size(); ++i) {
      const Character next = at(text, end);
      if ((next.kinds & kind::number) == 0) break;
      end = next.end;
    }
    return end;
  }
  int digits_;
};

/// Up to `most` characters of one kind together.
class RunSplit : public Scanner {
 public:
  RunSplit(std::uint8_t wanted, std::size_t most) : wanted_(wanted), most_(most) {}
  std::size_t piece_end(std::string_view text, std::size_t place) const override {
    if ((at(text, place).kinds & wanted_) == 0) return run_without(text, place, wanted_);
    for (std::size_t i = 0; i < most_ && place < text.size(); ++i) {
      const Character next = at(text, place);
      if ((next.kinds & wanted_) == 0) break;
      place = next.end;
    }
    return place;
  }

 private:
  std::uint8_t wanted_;
  std::size_t most_;
};

/// The last of DeepSeek-V3's three; numbers and controls alone match nothing and stay together.
class DeepSeekSplit : public Scanner {
 public:
  std::size_t piece_end(std::string_view text, std::size_t place) const override {
    if (const std::size_t end = match_end(text, place)) return end;
    while (place < text.size() && match_end(text, place) == 0) place = at(text, place).end;
    return place;
  }

 private:
  static bool latin(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

  // 0 where nothing matches.
  std::size_t match_end(std::string_view text, std::size_t place) const {
    constexpr std::uint8_t kLetters = kind::letter | kind::mark;
    const Character first = at(text, place);
    if ((first.kinds & kLetters) != 0) return run_of(text, first.end, kLetters);
    std::size_t end = first.end;
    if ((first.kinds & kind::sign) != 0) {
      if (end == place + 1 && end < text.size() && latin(text[end])) {
        while (end < text.size() && latin(text[end])) ++end;
        return end;
      }
      return run_of(text, run_of(text, end, kind::sign), kind::line_end);
    }
    const Character second = end < text.size() ? at(text, end) : Character{};
    if ((first.kinds & kind::line_end) == 0 && (second.kinds & kLetters) != 0) {
      return run_of(text, second.end, kLetters);
    }
    if (text[place] == ' ' && (second.kinds & kind::sign) != 0) {
      return run_of(text, run_of(text, second.end, kind::sign), kind::line_end);
    }
    return (first.kinds & kind::space) != 0 ? blanks(text, place, true) : 0;
  }
};

// Some files hold the line ends themselves where others hold \r and \n.
std::string line_ends_spelt(const std::string& pattern) {
  std::string spelt;
  for (const char c : pattern) {
    if (c == '\r' || c == '\n') {
      spelt += c == '\r' ? "\\r" : "\\n";
    } else {
      spelt += c;
    }
  }
  return spelt;
}

}  // namespace

std::unique_ptr<TextSplit> split_digits() { return std::make_unique<RunSplit>(kind::number, 1); }

std::unique_ptr<TextSplit> split_by_pattern(const std::string& pattern, const std::string& where) {
  const std::string spelt = line_ends_spelt(pattern);
  if (spelt == patterns::gpt2) return std::make_unique<Gpt2Split>();
  if (spelt == patterns::llama3) return std::make_unique<LettersSplit>(3);
  if (spelt == patterns::qwen2) return std::make_unique<LettersSplit>(1);
  if (spelt == patterns::three_digits) return std::make_unique<RunSplit>(kind::number, 3);
  if (spelt == patterns::unified) return std::make_unique<RunSplit>(kind::unified, SIZE_MAX);
  if (spelt == patterns::deepseek) return std::make_unique<DeepSeekSplit>();
  return split_by_engine(pattern, where);
}

}  // namespace shoestring
