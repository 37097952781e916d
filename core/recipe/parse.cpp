// The idea: scan.h finds entries and their lines, this file judges their words against the table of keys, and
// Boost.Program_options keeps the first value stored for a key (command line, then the recipe, then what it includes).
// Boost's own parsers would lose line numbers, stop at the first mistake and refuse an empty value.
#include "core/recipe/parse.h"

#include <fmt/core.h>

#include <boost/program_options.hpp>

#include <algorithm>
#include <cctype>
#include <map>
#include <set>

#include "core/recipe/keys.h"
#include "core/recipe/model_from.h"
#include "core/recipe/names.h"
#include "core/recipe/scan.h"
#include "core/recipe/validate.h"
#include "kernels/base/check.h"

namespace shoestring {
namespace {

namespace options = boost::program_options;

constexpr std::size_t kMostFiles = 64;
constexpr std::size_t kMostPhases = 64;
constexpr std::size_t kMostListed = 100;  // mistakes in an error's text

bool is_name(std::string_view text, std::size_t longest) {
  if (text.empty() || text.size() > longest || text.front() == '.') return false;
  return std::all_of(text.begin(), text.end(), [](unsigned char letter) {
    return std::isalnum(letter) != 0 || letter == '_' || letter == '-' || letter == '.';
  });
}

std::string did_you_mean(std::string_view near) {
  return near.empty() ? std::string{} : fmt::format("; did you mean '{}'?", near);
}

/// The key nearest to a wrong "section.name": in its own section first, else a namesake of another section.
std::string nearest_key(std::string_view section, std::string_view name) {
  std::vector<std::string_view> own;
  std::vector<std::string_view> other;
  for (const Key& key : recipe_keys()) (key.section == section_kind(section) ? own : other).push_back(key.name);
  const std::string_view near = nearest_word(name, own);
  const auto dotted = [](std::string_view place, std::string_view word) { return fmt::format("{}.{}", place, word); };
  const auto elsewhere = std::find(other.begin(), other.end(), name);
  if (elsewhere != other.end()) {
    for (const Key& key : recipe_keys()) {
      if (key.name == name) return dotted(key.of_phase() ? "phase.NAME" : key.section, name);
    }
  }
  return near.empty() ? std::string{} : dotted(section, near);
}

class Reader {
 public:
  explicit Reader(RecipeReading& reading) : reading_(reading) {}

  void take_file(const std::filesystem::path& file, int depth);
  void take_text(const std::string& text, const std::string& name);
  void take_overrides(std::span<const std::string> overrides);
  void finish(bool schedule = true);

 private:
  void mistake(Origin origin, std::string key, std::string text) {
    reading_.mistakes.push_back({std::move(origin), std::move(key), std::move(text)});
  }
  /// Whether one more mistake will be read by anybody: what might have been meant is looked up for those only.
  bool listed() const { return reading_.mistakes.size() < kMostListed; }
  void take_scan(Scan scan);
  void include(const Entry& entry, const std::filesystem::path& folder, int depth);
  void judge(const std::vector<Header>& headers);
  bool accept(const Entry& entry);
  std::size_t phase_index(std::string_view section) const;
  void take_override(const std::string& argument);
  void store(const Entry& entry);
  void bind();

  RecipeReading& reading_;
  std::vector<std::filesystem::path> open_;  // chain of includes being read
  std::vector<std::vector<Entry>> layers_;   // accepted entries, least important file first
  std::vector<std::string> phases_;          // section names "phase.NAME" in order
  std::vector<std::string> overrides_;
  options::variables_map values_;
  std::set<std::string> mistaken_;  // dotted keys whose winning value is wrong
};

void Reader::take_file(const std::filesystem::path& file, int depth) {
  const std::string text = read_small_file(file);
  open_.push_back(std::filesystem::weakly_canonical(file));
  reading_.files.push_back(file);
  Scan scan = scan_text(text, file.string());
  for (const Entry& entry : scan.includes) include(entry, file.parent_path(), depth);
  take_scan(std::move(scan));
  open_.pop_back();
}

void Reader::take_text(const std::string& text, const std::string& name) {
  Scan scan = scan_text(text, name);
  for (const Entry& entry : scan.includes) mistake(entry.origin, "include", "include is not possible here");
  take_scan(std::move(scan));
}

void Reader::include(const Entry& entry, const std::filesystem::path& folder, int depth) {
  const std::filesystem::path file = folder / entry.value;
  const auto blame = [&](std::string text) { mistake(entry.origin, "include", std::move(text)); };
  if (entry.value.empty()) return blame("include names no file");
  if (depth >= kIncludeDepthLimit) return blame(fmt::format("includes are nested deeper than {}", kIncludeDepthLimit));
  if (reading_.files.size() >= kMostFiles) return blame(fmt::format("more than {} files are included", kMostFiles));
  try {
    const auto canonical = std::filesystem::weakly_canonical(file);
    if (std::find(open_.begin(), open_.end(), canonical) != open_.end()) {
      return blame(fmt::format("including {} leads back to itself", quote_text(entry.value)));
    }
    take_file(file, depth + 1);
  } catch (const std::exception& error) {
    blame(error.what());
  }
}

void Reader::take_scan(Scan scan) {
  for (Mistake& found : scan.mistakes) reading_.mistakes.push_back(std::move(found));
  judge(scan.headers);
  std::map<std::string, int> first_line;
  std::vector<Entry> accepted;
  for (Entry& entry : scan.entries) {
    if (!accept(entry)) continue;
    const auto [place, fresh] = first_line.emplace(entry.dotted(), entry.origin.line);
    if (fresh) {
      accepted.push_back(std::move(entry));
    } else {
      mistake(entry.origin, entry.dotted(),
              fmt::format("{} is given again; first on line {}", entry.dotted(), place->second));
    }
  }
  layers_.push_back(std::move(accepted));
}

void Reader::judge(const std::vector<Header>& headers) {
  std::vector<std::string_view> known;
  for (const std::string& section : recipe_sections()) known.push_back(section);
  for (const Header& header : headers) {
    const std::string& section = header.section;
    if (section.starts_with("phase.")) {
      if (!is_name(section.substr(6), 64)) {
        mistake(
            header.origin, section,
            fmt::format("{} is no name for a phase: letters, digits, '_', '-', '.'", quote_name(section.substr(6))));
      } else if (phases_.size() == kMostPhases) {
        mistake(header.origin, section, fmt::format("there are more than {} phases", kMostPhases));
      } else if (std::find(phases_.begin(), phases_.end(), section) == phases_.end()) {
        phases_.push_back(section);
      }
    } else if (section == "phase") {
      mistake(header.origin, section, "a phase needs a name: [phase.NAME]");
    } else if (std::find(known.begin(), known.end(), section) == known.end()) {
      mistake(header.origin, section,
              fmt::format("unknown section {}{}", quote_name(section),
                          did_you_mean(listed() ? nearest_word(section, known) : "")));
      continue;
    }
    reading_.origins.emplace(section, header.origin);
  }
}

/// Whether the table knows the key; reports it if not. Keys of unknown sections are left to their section's mistake.
bool Reader::accept(const Entry& entry) {
  if (entry.section.empty()) {
    const auto dot = entry.key.rfind('.');
    const std::string near = dot != std::string::npos ? entry.key : listed() ? nearest_key({}, entry.key) : "";
    mistake(entry.origin, entry.key,
            fmt::format("{} stands outside a section{}", quote_name(entry.key), did_you_mean(near)));
    return false;
  }
  const auto& sections = recipe_sections();
  const std::string kind(section_kind(entry.section));
  const bool phase = kind == "phase";
  if (std::find(sections.begin(), sections.end(), kind) == sections.end()) return false;
  if (phase && std::find(phases_.begin(), phases_.end(), entry.section) == phases_.end()) return false;
  if (find_key(entry.section, entry.key) != nullptr) return true;
  mistake(entry.origin, entry.section + "." + entry.key,
          fmt::format("unknown key {}{}", quote_name(entry.dotted()),
                      did_you_mean(listed() ? nearest_key(entry.section, entry.key) : "")));
  return false;
}

std::size_t Reader::phase_index(std::string_view section) const {
  const auto found = std::find(phases_.begin(), phases_.end(), section);
  return found == phases_.end() ? 0 : static_cast<std::size_t>(found - phases_.begin());
}

void Reader::take_overrides(std::span<const std::string> overrides) {
  overrides_.assign(overrides.begin(), overrides.end());
}

void Reader::take_override(const std::string& argument) {
  const Origin origin{.file = "command line", .text = argument, .layer = 0};
  const auto blame = [&](const std::string& text) { mistake(origin, {}, text); };
  if (!looks_like_override(argument)) {
    return blame(fmt::format("{} is no override: write --section.key=value", quote_text(argument)));
  }
  const std::string dotted = argument.substr(2, argument.find('=') - 2);
  const auto dot = dotted.rfind('.');
  const Entry entry{dotted.substr(0, dot), dotted.substr(dot + 1), argument.substr(argument.find('=') + 1), origin};
  const bool of_phase = entry.section.starts_with("phase.");
  const bool in_table = entry.section != "phase" && find_key(entry.section, entry.key) != nullptr;
  if (in_table && of_phase && std::find(phases_.begin(), phases_.end(), entry.section) == phases_.end()) {
    std::vector<std::string_view> phases(phases_.begin(), phases_.end());
    return blame(fmt::format("there is no section {}{}", quote_name(entry.section),
                             did_you_mean(nearest_word(entry.section, phases))));
  }
  if (!in_table) {
    const std::string some_phase = phases_.empty() ? "phase.NAME" : phases_.front();
    const std::string near = nearest_key(entry.section == "phase" ? some_phase : entry.section, entry.key);
    return blame(fmt::format("unknown key {}{}", quote_name(dotted), did_you_mean(near)));
  }
  if (reading_.origins.contains(dotted)) return blame(fmt::format("{} is given twice; keep one", dotted));
  store(entry);
  layers_.push_back({entry});
}

/// Hands one accepted entry to Boost; a key that an earlier layer has stored keeps its value. Boost hears of this key
/// alone, as it looks through all that it knows for every entry.
void Reader::store(const Entry& entry) {
  options::options_description key;
  key.add_options()(entry.dotted().c_str(), options::value<std::string>());
  options::parsed_options parsed(&key);
  parsed.options.emplace_back(entry.dotted(), std::vector<std::string>{entry.value});
  options::store(parsed, values_);
  reading_.origins.emplace(entry.dotted(), entry.origin);
}

/// Checks every value ever written, then assigns the winning ones.
void Reader::bind() {
  Recipe scratch;
  scratch.phases.resize(std::max<std::size_t>(1, phases_.size()));
  for (const std::vector<Entry>& layer : layers_) {
    for (const Entry& entry : layer) {
      const Key& key = *find_key(entry.section, entry.key);
      const std::string wrong = key.assign(scratch, phase_index(entry.section), entry.value);
      if (wrong.empty()) continue;
      const std::string value = key.type == ValueType::choice ? quote_name(entry.value) : quote_text(entry.value);
      mistake(entry.origin, entry.dotted(), fmt::format("{} = {} {}", entry.dotted(), value, wrong));
      mistaken_.insert(entry.dotted());
    }
  }
  reading_.recipe.phases.resize(phases_.size());
  for (std::size_t phase = 0; phase < phases_.size(); ++phase) {
    reading_.recipe.phases[phase].name = phases_[phase].substr(6);
  }
  for (const auto& [dotted, value] : values_) {
    const auto dot = dotted.rfind('.');
    const std::string section = dotted.substr(0, dot);
    find_key(section, dotted.substr(dot + 1))->assign(reading_.recipe, phase_index(section), value.as<std::string>());
  }
}

void Reader::finish(bool schedule) {
  const std::size_t files = layers_.size();
  for (const std::string& argument : overrides_) take_override(argument);
  for (std::size_t layer = files; layer-- > 0;) {  // the most important file first
    for (Entry& entry : layers_[layer]) {
      entry.origin.layer = static_cast<int>(files - layer);
      store(entry);
    }
  }
  bind();
  if (!reading_.files.empty()) {  // a text in no file is a complete one
    for (Mistake& found : complete_model(reading_)) reading_.mistakes.push_back(std::move(found));
  }
  for (Mistake& found : validate(reading_.recipe, reading_.origins, reading_.mistakes, schedule)) {
    reading_.mistakes.push_back(std::move(found));
  }
  const auto rank = [&](const Mistake& found) {  // files as read, the command line, what has no place
    const auto& read = reading_.files;
    const auto place =
        std::find_if(read.begin(), read.end(), [&](const auto& file) { return file.string() == found.origin.file; });
    return std::pair((place - read.begin()) + (found.origin.file.empty() ? 1 : 0), found.origin.line);
  };
  std::stable_sort(reading_.mistakes.begin(), reading_.mistakes.end(),
                   [&](const Mistake& left, const Mistake& right) { return rank(left) < rank(right); });
}

RecipeReading reading_of_text(const std::string& text, const std::string& name, std::span<const std::string> overrides,
                              bool schedule) {
  RecipeReading reading;
  Reader reader(reading);
  reader.take_overrides(overrides);
  reader.take_text(text, name);
  reader.finish(schedule);
  return reading;
}

RecipeReading checked(RecipeReading reading, const std::string& name) {
  if (reading.mistakes.empty()) return reading;
  const std::size_t count = reading.mistakes.size();
  std::string text = fmt::format("{} has {}:", name, count == 1 ? "a mistake" : fmt::format("{} mistakes", count));
  for (std::size_t i = 0; i < std::min(count, kMostListed); ++i) text += "\n  " + reading.mistakes[i].line();
  if (count > kMostListed) text += fmt::format("\n  and {} more", count - kMostListed);
  throw Error(ExitCode::bad_recipe, text);
}

}  // namespace

std::string Origin::place() const {
  if (file.empty()) return "default";
  return line > 0 ? fmt::format("{}:{}", file, line) : file;
}

std::string Mistake::line() const { return origin.file.empty() ? text : fmt::format("{}: {}", origin.place(), text); }

bool looks_like_override(std::string_view argument) {
  if (!argument.starts_with("--")) return false;
  const std::string_view name = argument.substr(2, argument.find('=') - 2);
  return argument.find('=') != std::string_view::npos && name.find('.') != std::string_view::npos &&
         name.front() != '.' && name.back() != '.';
}

RecipeReading read_recipe(const std::filesystem::path& file, std::span<const std::string> overrides) {
  RecipeReading reading;
  Reader reader(reading);
  reader.take_overrides(overrides);
  reader.take_file(file, 0);
  reader.finish();
  return reading;
}

RecipeReading parse_recipe(const std::filesystem::path& file, std::span<const std::string> overrides) {
  return checked(read_recipe(file, overrides), file.string());
}

RecipeReading read_recipe_text(const std::string& text, const std::string& name,
                               std::span<const std::string> overrides) {
  return reading_of_text(text, name, overrides, true);
}

RecipeReading parse_recipe_text(const std::string& text, const std::string& name,
                                std::span<const std::string> overrides) {
  return checked(reading_of_text(text, name, overrides, false), name);
}

}  // namespace shoestring
