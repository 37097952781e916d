// Where a tokenizer file cuts text into words before byte pairs are joined.
//
// A TextSplit divides text into pieces: what its pattern matches, and what lies between matches. Patterns in wide use
// are written out below as scanners over character kinds, many times faster than an engine; every other pattern is run
// by PCRE2 with limits, so that one which backtracks without end is an Error(bad_data) and no hang. Tokenizer files are
// written for another engine, Oniguruma: what PCRE2 would take in another sense is refused.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

namespace shoestring {

/// Immutable and thread-safe.
class TextSplit {
 public:
  virtual ~TextSplit() = default;
  /// Where the piece ends that begins at `at` < text.size(); behind `at`. The text is well-formed UTF-8; pieces are
  /// asked for in turn, from 0.
  virtual std::size_t piece_end(std::string_view text, std::size_t at) const = 0;
};

/// The scanner of `pattern` where there is one, else PCRE2. Error(bad_data) with `where` for what is no pattern,
/// or another one to Oniguruma.
std::unique_ptr<TextSplit> split_by_pattern(const std::string& pattern, const std::string& where);
/// Always by PCRE2.
std::unique_ptr<TextSplit> split_by_engine(const std::string& pattern, const std::string& where);
/// Every number character by itself.
std::unique_ptr<TextSplit> split_digits();

namespace patterns {
extern const std::string_view gpt2;          ///< GPT-2, and what a ByteLevel step does by itself
extern const std::string_view llama3;        ///< three digits together
extern const std::string_view qwen2;         ///< each digit by itself
extern const std::string_view three_digits;  ///< DeepSeek-V3's three, in their order
extern const std::string_view unified;
extern const std::string_view deepseek;
}  // namespace patterns

}  // namespace shoestring
