#include "core/recipe/values.h"

#include <algorithm>
#include <cmath>
#include <filesystem>

namespace shoestring::values {
namespace {

constexpr std::size_t kLongestText = 4096;
constexpr std::size_t kMostItems = 1024;

std::string_view trimmed(std::string_view text) {
  const auto first = text.find_first_not_of(" \t");
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(" \t") - first + 1);
}

/// What would not survive being written into a recipe.
std::string unwritable(std::string_view text) {
  for (const char letter : text) {
    const auto code = static_cast<unsigned char>(letter);
    if (letter == '#' || code < 0x20 || code == 0x7f)
      return "holds '#' or a control character, which no recipe can hold: leave it out, or rename what it names";
  }
  return {};
}

bool exists(std::string_view path) {
  std::error_code unknown;  // a name that cannot be asked for is none
  return std::filesystem::exists(std::filesystem::path(path), unknown);
}

std::vector<std::string_view> split(std::string_view text) {
  std::vector<std::string_view> items;
  if (trimmed(text).empty()) return items;
  while (true) {
    const auto comma = text.find(',');
    items.push_back(trimmed(text.substr(0, comma)));
    if (comma == std::string_view::npos) return items;
    text.remove_prefix(comma + 1);
  }
}

/// A path that is there and has a comma, which makes two sources of it; empty where there is none. `items` are parts of
/// `text`.
std::string_view path_with_comma(std::string_view text, const std::vector<std::string_view>& items) {
  constexpr std::size_t kMostCommas = 3;
  for (std::size_t first = 0; first < items.size(); ++first) {
    for (std::size_t last = first + 1; last < std::min(items.size(), first + kMostCommas + 1); ++last) {
      if (items[first].empty() || items[last].empty()) continue;
      const auto begin = static_cast<std::size_t>(items[first].data() - text.data());
      const auto end = static_cast<std::size_t>(items[last].data() - text.data()) + items[last].size();
      const std::string_view path = text.substr(begin, end - begin);
      for (const std::string_view name : {path, trimmed(path.substr(0, path.rfind(':')))}) {
        if (exists(name)) return name;
      }
    }
  }
  return {};
}

}  // namespace

std::string out_of_bounds(double value, const Key& key) {
  if (value >= key.low && value <= key.high) return {};
  if (std::isinf(key.high) && key.low == kAboveZero) return "must be above 0";
  if (key.low == kAboveZero) return fmt::format("must be above 0 and at most {}", rounded(key.high, 12));
  if (std::isinf(key.high)) return fmt::format("must be at least {}", rounded(key.low, 12));
  return fmt::format("must lie between {} and {}", rounded(key.low, 12), rounded(key.high, 12));
}

std::string parse_boolean(std::string_view text, bool& value) {
  for (const std::string_view yes : {"yes", "true", "on", "1"}) {
    if (text == yes) return value = true, std::string{};
  }
  for (const std::string_view no : {"no", "false", "off", "0"}) {
    if (text == no) return value = false, std::string{};
  }
  return "must be yes or no";
}

std::string parse_text(std::string_view text, std::string& value) {
  if (text.size() > kLongestText) return fmt::format("is longer than {} bytes", kLongestText);
  std::string mistake = unwritable(text);
  if (mistake.empty()) value = trimmed(text);
  return mistake;
}

std::string parse_list(std::string_view text, std::vector<std::string>& value) {
  if (std::string mistake = unwritable(text); !mistake.empty()) return mistake;
  const std::vector<std::string_view> items = split(text);
  if (items.size() > kMostItems) return fmt::format("has more than {} items", kMostItems);
  for (const std::string_view item : items) {
    if (item.empty() || item.size() > kLongestText)
      return "has an empty or overlong item; items are separated by commas";
  }
  if (const std::string_view path = path_with_comma(text, items); !path.empty()) {
    return fmt::format("is several items, since a comma separates them, but '{}' exists: rename it", path);
  }
  value.assign(items.begin(), items.end());
  return {};
}

std::string parse_sources(std::string_view text, std::vector<SourceSpec>& value) {
  if (std::string mistake = unwritable(text); !mistake.empty()) return mistake;
  const std::vector<std::string_view> items = split(text);
  if (items.size() > kMostItems) return fmt::format("has more than {} sources", kMostItems);
  if (const std::string_view path = path_with_comma(text, items); !path.empty()) {
    return fmt::format("is several sources, since a comma separates them, but '{}' exists: rename it", path);
  }
  std::vector<SourceSpec> sources;
  for (const std::string_view item : items) {
    auto colon = item.rfind(':');
    if (colon != std::string_view::npos && exists(item)) {  // a name that ends like a weight
      if (exists(trimmed(item.substr(0, colon)))) {
        return fmt::format("may mean '{}' or '{}' with a weight, and both are there; write '{}:1' for the first", item,
                           trimmed(item.substr(0, colon)), item);
      }
      colon = std::string_view::npos;
    }
    SourceSpec source{std::string(trimmed(item.substr(0, colon))), 1};
    if (source.path.empty() || source.path.size() > kLongestText) {
      return "has an empty or overlong path; write PATH or PATH:WEIGHT, PATH:WEIGHT ...";
    }
    if (colon != std::string_view::npos) {
      const Quantity weight = parse_quantity(item.substr(colon + 1), Unit::none);
      if (!weight.mistake.empty() || weight.value <= 0) {
        return fmt::format("has a weight '{}' that is not a number above 0", trimmed(item.substr(colon + 1)));
      }
      source.weight = weight.value;
    }
    sources.push_back(std::move(source));
  }
  value = std::move(sources);
  return {};
}

std::string not_a_word(std::string_view text, std::span<const std::string_view> words) {
  std::string all;
  for (const std::string_view candidate : words) all += (all.empty() ? "" : ", ") + std::string(candidate);
  const std::string_view near = nearest_word(text, words);
  if (near.empty()) return fmt::format("is none of {}", all);
  return fmt::format("is none of {}; did you mean '{}'?", all, near);
}

std::string print_sources(const std::vector<SourceSpec>& value) {
  std::string text;
  for (const SourceSpec& source : value) {
    if (!text.empty()) text += ", ";
    text += source.path;
    if (source.weight != 1 || source.path.find(':') != std::string::npos)
      text += ":" + print_quantity(source.weight, Unit::none);
  }
  return text;
}

std::string print_list(const std::vector<std::string>& value) {
  std::string text;
  for (const std::string& item : value) text += (text.empty() ? "" : ", ") + item;
  return text;
}

}  // namespace shoestring::values
