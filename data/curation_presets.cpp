#include "data/curation_presets.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <string>

namespace shoestring {
namespace {

using Words = std::vector<std::string_view>;

double share_if(const Words& pieces, bool (*holds)(std::string_view)) {
  if (pieces.empty()) return 0;
  return static_cast<double>(std::count_if(pieces.begin(), pieces.end(), holds)) / static_cast<double>(pieces.size());
}

double mean_length(const Words& words) {
  std::size_t characters = 0;
  for (const std::string_view word : words) {
    characters += static_cast<std::size_t>(
        std::count_if(word.begin(), word.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; }));
  }
  return words.empty() ? 0 : static_cast<double>(characters) / static_cast<double>(words.size());
}

bool has_letter(std::string_view word) {
  return std::any_of(word.begin(), word.end(), [](char c) {
    return std::isalpha(static_cast<unsigned char>(c)) != 0 || static_cast<unsigned char>(c) >= 0xC3;
  });
}

std::size_t occurrences(std::string_view text, std::string_view what) {
  std::size_t count = 0;
  for (std::size_t at = text.find(what); at != std::string_view::npos; at = text.find(what, at + what.size())) ++count;
  return count;
}

constexpr std::string_view kEllipsis = "\xE2\x80\xA6";

// A hash or an ellipsis, of either spelling.
double symbols_per_word(const DocumentText& document) {
  const std::string_view text = document.text();
  const std::size_t symbols = std::max(occurrences(text, "#"), occurrences(text, "...") + occurrences(text, kEllipsis));
  return static_cast<double>(symbols) / static_cast<double>(std::max<std::size_t>(1, document.words().size()));
}

bool is_bullet(std::string_view line) {
  return line.starts_with("\xE2\x80\xA2") || line.starts_with('*') || line.starts_with("- ");
}
bool ends_open(std::string_view line) { return line.ends_with("...") || line.ends_with(kEllipsis); }

std::string lower(std::string_view text) {
  std::string small(text);
  std::transform(small.begin(), small.end(), small.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return small;
}

// How many of Gopher's eight English words the document has.
int stop_words(const DocumentText& document) {
  constexpr std::array<std::string_view, 8> kWords = {"the", "be", "to", "of", "and", "that", "have", "with"};
  std::array<bool, 8> found{};
  for (const std::string_view word : document.words()) {
    const auto at = std::find(kWords.begin(), kWords.end(), lower(word));
    if (at != kWords.end()) found[static_cast<std::size_t>(at - kWords.begin())] = true;
  }
  return static_cast<int>(std::count(found.begin(), found.end(), true));
}

std::vector<PresetRule> gopher_rules() {
  std::vector<PresetRule> rules;
  const auto add = [&](const std::string& name, std::string limit, std::function<bool(const DocumentText&)> broken) {
    rules.push_back({{"gopher: " + name, std::move(limit), "Rae et al. 2021, appendix A.1.1"}, std::move(broken)});
  };
  add("words", "50 to 100000",
      [](const DocumentText& document) { return document.words().size() < 50 || document.words().size() > 100'000; });
  add("mean length of a word", "3 to 10 characters", [](const DocumentText& document) {
    const double mean = mean_length(document.words());
    return mean < 3 || mean > 10;
  });
  add("hashes or ellipses a word", "at most 0.1",
      [](const DocumentText& document) { return symbols_per_word(document) > 0.1; });
  add("lines that begin with a bullet", "at most 0.9",
      [](const DocumentText& document) { return share_if(document.lines(), is_bullet) > 0.9; });
  add("lines that end with an ellipsis", "at most 0.3",
      [](const DocumentText& document) { return share_if(document.lines(), ends_open) > 0.3; });
  add("words with a letter", "at least 0.8",
      [](const DocumentText& document) { return share_if(document.words(), has_letter) < 0.8; });
  add("of the, be, to, of, and, that, have, with", "at least 2",
      [](const DocumentText& document) { return stop_words(document) < 2; });
  add("repeated lines", "at most 0.3",
      [](const DocumentText& document) { return repetition(document.lines()).share > 0.3; });
  add("repeated paragraphs", "at most 0.3",
      [](const DocumentText& document) { return repetition(document.paragraphs()).share > 0.3; });
  add("characters in repeated lines", "at most 0.2",
      [](const DocumentText& document) { return repetition(document.lines()).byte_share > 0.2; });
  add("characters in repeated paragraphs", "at most 0.2",
      [](const DocumentText& document) { return repetition(document.paragraphs()).byte_share > 0.2; });
  for (const auto& [n, most] : {std::pair(2, 0.20), {3, 0.18}, {4, 0.16}}) {
    add(fmt::format("characters in the most frequent {}-gram", n), fmt::format("at most {}", most),
        [n = static_cast<std::size_t>(n), most = most](const DocumentText& document) {
          return most_frequent_run(document.words(), n) > most;
        });
  }
  for (const auto& [n, most] : {std::pair(5, 0.15), {6, 0.14}, {7, 0.13}, {8, 0.12}, {9, 0.11}, {10, 0.10}}) {
    add(fmt::format("characters in repeated {}-grams", n), fmt::format("at most {}", most),
        [n = static_cast<std::size_t>(n), most = most](const DocumentText& document) {
          return repeated_runs(document.words(), n) > most;
        });
  }
  return rules;
}

// Of the lines that C4 keeps.
std::size_t sentences(const DocumentText& document) {
  std::size_t count = 0;
  for (std::string_view line : document.lines()) {
    if (DocumentText(line).words().size() < 5 || lower(line).find("javascript") != std::string::npos) continue;
    std::string_view ending = line;
    while (!ending.empty() && (ending.back() == '"' || ending.back() == '\'' || ending.back() == ')')) {
      ending.remove_suffix(1);
    }
    if (ending.empty() || ending.ends_with("...") || std::string_view(".!?").find(ending.back()) == ending.npos) {
      continue;
    }
    for (std::size_t at = 0; at < line.size(); ++at) {
      const bool stop = line[at] == '.' || line[at] == '!' || line[at] == '?';
      const bool last = at + 1 == line.size() || line[at + 1] == ' ' || line[at + 1] == '"' || line[at + 1] == ')';
      count += stop && last ? 1 : 0;
    }
  }
  return count;
}

std::vector<PresetRule> c4_rules() {
  constexpr const char* kSource = "Raffel et al. 2020, section 2.2";
  return {
      {{"c4: lorem ipsum", "none", kSource},
       [](const DocumentText& document) { return lower(document.text()).find("lorem ipsum") != std::string::npos; }},
      {{"c4: curly brackets", "none", kSource},
       [](const DocumentText& document) { return document.text().find('{') != std::string_view::npos; }},
      {{"c4: sentences on lines it keeps", "at least 3", kSource},
       [](const DocumentText& document) { return sentences(document) < 3; }},
  };
}

}  // namespace

std::vector<PresetRule> preset_rules(std::string_view preset) {
  if (preset == "gopher") return gopher_rules();
  if (preset == "c4") return c4_rules();
  return {};
}

}  // namespace shoestring
