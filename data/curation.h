// Which documents of a corpus are worth training on: rules, each optional, each a function of the text alone. A
// document goes by the first rule it breaks; its text is never changed.
//
//   gopher   quality and repetition, Rae et al., "Scaling Language Models: Methods, Analysis & Insights from Training
//            Gopher", 2021, appendix A.1.1 and table A1. Words stand between blanks.
//   c4       Raffel et al., "Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer", 2020,
//            section 2.2: no "lorem ipsum", no curly bracket, and three sentences at least on lines of five words that
//            end with a full stop or the like and do not say "javascript". Where C4 keeps these lines alone, the whole
//            document is kept here; its list of bad words is not.
//
// Decontamination: a document that shares 13 words in a row with a text it will be evaluated on (Brown et al.,
// "Language Models are Few-Shot Learners", 2020, appendix C), letters and digits in small letters being words. Texts
// shorter than that are not looked for.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace shoestring {

struct CurationOptions {
  std::vector<std::string> presets{};  ///< "gopher", "c4"
  std::int64_t least_bytes = 0;        ///< of a document
  std::int64_t most_bytes = 0;         ///< 0: no limit
  double repeated_lines = 1;           ///< share of lines that may repeat earlier ones
  std::vector<std::string> scripts{};  ///< most letters are of these: "latin", "cyrillic" ...; none: any
  std::vector<std::filesystem::path> decontaminate{};  ///< files and folders, as inputs of a corpus

  bool any() const;
};

struct CurationRule {
  std::string name;    ///< "gopher: words"
  std::string limit;   ///< "50 to 100000"
  std::string source;  ///< of a published rule
};

class Curation {
 public:
  /// Throws Error(usage) for a preset or script that is none, Error(missing_input) for an evaluation file.
  explicit Curation(const CurationOptions& options);
  ~Curation();
  Curation(const Curation&) = delete;
  Curation& operator=(const Curation&) = delete;
  /// In the order they are asked in.
  const std::vector<CurationRule>& rules() const { return rules_; }
  /// Of the evaluation texts; 0 where there are none.
  std::uint64_t evaluation_digest() const;
  /// The number of the first rule that the text breaks, from 1; 0: none. Thread-safe.
  std::uint8_t broken_rule(std::string_view text) const;

 private:
  struct Judge;
  std::vector<CurationRule> rules_;
  std::vector<Judge> judges_;             // one a rule
  std::vector<std::uint64_t> evaluated_;  // hashes of runs of 13 words, sorted
};

}  // namespace shoestring
