#include "data/curation.h"

#include <fmt/format.h>
#include <xxhash.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <functional>

#include "data/corpus.h"
#include "data/curation_presets.h"
#include "kernels/base/check.h"

namespace shoestring {
namespace {

constexpr std::size_t kRun = 13;         // words
constexpr double kOfTheScripts = 0.5;    // of the letters
constexpr std::size_t kMostRules = 255;  // a rule's number is kept in a byte

/// Calls `each` with the hash of every run of kRun words; a word is letters and digits, in small letters.
template <class Each>
void for_each_run(std::string_view text, const Each& each) {
  std::array<std::uint64_t, kRun> last{};
  std::array<std::uint64_t, kRun> run{};
  std::string word;
  std::size_t count = 0;
  for (std::size_t at = 0; at <= text.size(); ++at) {
    const auto c = static_cast<unsigned char>(at < text.size() ? text[at] : ' ');
    if (std::isalnum(c) != 0 || c >= 0x80) {
      word += static_cast<char>(std::tolower(c));
      continue;
    }
    if (word.empty()) continue;
    last[count++ % kRun] = XXH3_64bits(word.data(), word.size());
    word.clear();
    if (count < kRun) continue;
    for (std::size_t i = 0; i < kRun; ++i) run[i] = last[(count + i) % kRun];
    if (!each(XXH3_64bits(run.data(), sizeof run))) return;
  }
}

std::vector<std::uint64_t> runs_in(const std::vector<std::filesystem::path>& files) {
  std::vector<std::uint64_t> all;
  CorpusReader reader({.inputs = files, .extensions = {}});
  Document document;
  while (reader.next(document)) {
    for_each_run(document.text, [&](std::uint64_t run) {
      all.push_back(run);
      return true;
    });
  }
  std::sort(all.begin(), all.end());
  all.erase(std::unique(all.begin(), all.end()), all.end());
  return all;
}

void require_scripts(const std::vector<std::string>& scripts) {
  const std::vector<std::string_view> known = known_scripts();
  for (const std::string& script : scripts) {
    if (std::find(known.begin(), known.end(), script) != known.end()) continue;
    fail(ExitCode::usage, "'{}' is no script that is known here; there are {}", script, fmt::join(known, ", "));
  }
}

}  // namespace

struct Curation::Judge {
  std::function<bool(const DocumentText&)> broken;
};

bool CurationOptions::any() const {
  return !presets.empty() || least_bytes > 0 || most_bytes > 0 || repeated_lines < 1 || !scripts.empty() ||
         !decontaminate.empty();
}

Curation::Curation(const CurationOptions& options) {
  const auto add = [&](CurationRule rule, std::function<bool(const DocumentText&)> broken) {
    rules_.push_back(std::move(rule));
    judges_.push_back({std::move(broken)});
  };
  if (options.least_bytes > 0) {
    add({"bytes", fmt::format("at least {}", options.least_bytes), ""},
        [least = static_cast<std::size_t>(options.least_bytes)](const DocumentText& document) {
          return document.text().size() < least;
        });
  }
  if (options.most_bytes > 0) {
    add({"bytes", fmt::format("at most {}", options.most_bytes), ""},
        [most = static_cast<std::size_t>(options.most_bytes)](const DocumentText& document) {
          return document.text().size() > most;
        });
  }
  if (!options.scripts.empty()) {
    require_scripts(options.scripts);
    add({"letters of " + fmt::format("{}", fmt::join(options.scripts, ", ")),
         fmt::format("more than {}", kOfTheScripts), ""},
        [scripts = options.scripts](const DocumentText& document) {
          return script_share(document.text(), scripts) <= kOfTheScripts;
        });
  }
  if (options.repeated_lines < 1) {
    add({"repeated lines", fmt::format("at most {}", options.repeated_lines), ""},
        [most = options.repeated_lines](const DocumentText& document) {
          return repetition(document.lines()).share > most;
        });
  }
  for (const std::string& preset : options.presets) {
    std::vector<PresetRule> rules = preset_rules(preset);
    if (rules.empty()) fail(ExitCode::usage, "'{}' is no preset of rules; there are gopher and c4", preset);
    for (PresetRule& rule : rules) add(std::move(rule.rule), std::move(rule.broken));
  }
  if (!options.decontaminate.empty()) {
    evaluated_ = runs_in(options.decontaminate);
    add({fmt::format("{} words in a row of the evaluation texts", kRun), "none", "Brown et al. 2020, appendix C"},
        [this](const DocumentText& document) {
          bool found = false;
          for_each_run(document.text(), [&](std::uint64_t run) {
            found = std::binary_search(evaluated_.begin(), evaluated_.end(), run);
            return !found;
          });
          return found;
        });
  }
  check(rules_.size() <= kMostRules, "{} rules of curation", rules_.size());
}

Curation::~Curation() = default;

std::uint64_t Curation::evaluation_digest() const {
  return evaluated_.empty() ? 0 : XXH3_64bits(evaluated_.data(), evaluated_.size() * sizeof evaluated_[0]);
}

std::uint8_t Curation::broken_rule(std::string_view text) const {
  const DocumentText document(text);
  for (std::size_t rule = 0; rule < judges_.size(); ++rule) {
    if (judges_[rule].broken(document)) return static_cast<std::uint8_t>(rule + 1);
  }
  return 0;
}

}  // namespace shoestring
