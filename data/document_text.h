// A document as rules of curation look at it: words, lines, paragraphs, each found when first asked for.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace shoestring {

class DocumentText {
 public:
  explicit DocumentText(std::string_view text) : text_(text) {}

  std::string_view text() const { return text_; }
  /// What stands between blanks.
  const std::vector<std::string_view>& words() const;
  /// Without blanks around them; empty ones are none.
  const std::vector<std::string_view>& lines() const;
  /// What stands between empty lines.
  const std::vector<std::string_view>& paragraphs() const;

 private:
  std::string_view text_;
  mutable std::optional<std::vector<std::string_view>> words_, lines_, paragraphs_;
};

/// Of some pieces, how many repeat an earlier one, and what share of the bytes they are.
struct Repetition {
  double share = 0;
  double byte_share = 0;
};
Repetition repetition(const std::vector<std::string_view>& pieces);
/// Share of the words' bytes that stand in a run of `n` words which came before, each byte once.
double repeated_runs(const std::vector<std::string_view>& words, std::size_t n);
/// Share of the words' bytes that the most frequent run of `n` words takes; 0 where none comes twice.
double most_frequent_run(const std::vector<std::string_view>& words, std::size_t n);

/// Share of letters that belong to one of the scripts; 1 where there are no letters. ASCII letters are latin.
double script_share(std::string_view text, const std::vector<std::string>& scripts);
/// The scripts there are.
std::vector<std::string_view> known_scripts();

}  // namespace shoestring
