#include "core/recipe/units.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <span>
#include <string>

namespace shoestring {
namespace {

struct Suffix {
  std::string_view text;
  double factor;
};

constexpr double kKi = 1024;
constexpr Suffix kCount[] = {{"K", 1e3},
                             {"M", 1e6},
                             {"B", 1e9},
                             {"G", 1e9},
                             {"T", 1e12},
                             {"P", 1e15},
                             {"Ki", kKi},
                             {"Mi", kKi* kKi},
                             {"Gi", kKi* kKi* kKi},
                             {"Ti", kKi* kKi* kKi* kKi}};
constexpr Suffix kPositions[] = {{"Ki", kKi}, {"Mi", kKi* kKi}};
constexpr Suffix kHours[] = {{"h", 1}, {"min", 1.0 / 60}, {"s", 1.0 / 3600}, {"d", 24}, {"K", 1e3}, {"M", 1e6}};
constexpr Suffix kMinutes[] = {{"min", 1}, {"h", 60}, {"s", 1.0 / 60}, {"d", 1440}};
constexpr Suffix kSeconds[] = {{"s", 1},     {"min", 60},  {"h", 3600}, {"d", 86400},
                               {"ms", 1e-3}, {"us", 1e-6}, {"ns", 1e-9}};
constexpr Suffix kBytes[] = {{"B", 1},
                             {"KB", 1e3},
                             {"MB", 1e6},
                             {"GB", 1e9},
                             {"TB", 1e12},
                             {"KiB", kKi},
                             {"MiB", kKi* kKi},
                             {"GiB", kKi* kKi* kKi},
                             {"TiB", kKi* kKi* kKi* kKi}};
constexpr Suffix kFraction[] = {{"%", 0.01}};
constexpr Suffix kWatts[] = {{"W", 1}, {"kW", 1e3}};

std::span<const Suffix> suffixes(Unit unit) {
  switch (unit) {
    case Unit::count:
    case Unit::rate: return kCount;
    case Unit::positions: return kPositions;
    case Unit::hours: return kHours;
    case Unit::minutes: return kMinutes;
    case Unit::seconds: return kSeconds;
    case Unit::bytes: return kBytes;
    case Unit::fraction: return kFraction;
    case Unit::watts: return kWatts;
    case Unit::none:
    case Unit::usd: break;
  }
  return {};
}

std::string_view trimmed(std::string_view text) {
  const auto first = text.find_first_not_of(" \t");
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(" \t") - first + 1);
}

/// A K that may stand for 1000 or 1024.
bool ambiguous(std::string_view suffix, Unit unit) {
  return unit == Unit::positions && (suffix == "K" || suffix == "k" || suffix == "M");
}

Quantity refused(std::string text) { return {0, std::move(text)}; }

bool is_digit(char letter) { return letter >= '0' && letter <= '9'; }

/// The digits that `text` begins with.
std::string_view leading_digits(std::string_view text) {
  return text.substr(0, static_cast<std::size_t>(std::find_if_not(text.begin(), text.end(), is_digit) - text.begin()));
}

/// What is wrong with a number that a comma follows: in some languages it parts thousands, in others a fraction. Text
/// that is written instead must not be another number than the one that was meant.
std::string comma_mistake(std::string_view text, bool whole) {
  const std::string_view sign = text.substr(0, text.starts_with('-') ? 1 : 0);
  std::string_view rest = text.substr(sign.size());
  const std::string_view first = leading_digits(rest);
  std::string joined = std::string(sign) + std::string(first);
  rest.remove_prefix(first.size());
  int commas = 0;
  bool thousands = !first.empty() && first.size() <= 3 && first[0] != '0';
  for (; rest.starts_with(','); ++commas) {
    const std::string_view group = leading_digits(rest.substr(1));
    thousands = thousands && group.size() == 3;
    joined += group;
    rest.remove_prefix(1 + group.size());
  }
  joined += rest;
  const bool one = commas == 1 && rest.find_first_of(".,") == std::string_view::npos;
  std::string dotted(text);
  if (one) dotted[text.find(',')] = '.';
  if (thousands && rest.find(',') == std::string_view::npos) {
    return fmt::format("holds a comma: write {}{}", joined,
                       one && !whole ? fmt::format(", or {} if a fraction is meant", dotted) : "");
  }
  if (one && (!whole || !rest.empty())) return fmt::format("has a decimal comma: write {}", dotted);
  return fmt::format("holds a comma: write digits without one{}", whole ? "" : ", and a point before a fraction");
}

/// Significant digits that give the same double back.
std::string shortest(double value) {
  std::array<char, 32> buffer;
  const auto [end, error] = std::to_chars(buffer.data(), buffer.data() + buffer.size(), value);
  return error == std::errc() ? std::string(buffer.data(), end) : std::string("nan");
}

Quantity parse(std::string_view text, Unit unit, bool whole) {
  text = trimmed(text);
  std::string_view digits = text;
  if (unit == Unit::usd && digits.starts_with('$')) digits = trimmed(digits.substr(1));
  if (digits.starts_with('+')) digits.remove_prefix(1);
  double number = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), number);
  if (error != std::errc() || !std::isfinite(number)) return refused("is not a number");
  const std::string_view suffix = trimmed(digits.substr(static_cast<std::size_t>(end - digits.data())));
  if (suffix.empty()) return {number, {}};
  if (ambiguous(suffix, unit)) {
    const bool mega = suffix == "M";
    return refused(fmt::format("may mean 1000 or 1024: write {}{} ({}) or {}", rounded(number), mega ? "Mi" : "Ki",
                               rounded(number * (mega ? kKi * kKi : kKi), 9), rounded(number * (mega ? 1e6 : 1e3), 9)));
  }
  for (const Suffix& known : suffixes(unit)) {
    if (known.text != suffix) continue;
    // Times shorter than the unit divide, so that 30min is 0.5 h exactly.
    const double inverse = std::round(1 / known.factor);
    const double value = known.factor < 1 && unit != Unit::seconds ? number / inverse : number * known.factor;
    if (!std::isfinite(value)) return refused("is too large");
    return {value, {}};
  }
  if (suffix.size() > 1 && suffix[0] == ',' && is_digit(suffix[1])) return refused(comma_mistake(digits, whole));
  const std::string_view allowed = unit_suffixes(unit);
  if (allowed.empty()) return refused("is a number followed by text; this key has no unit");
  return refused(fmt::format("has an unknown unit; units here: {}", allowed));
}

}  // namespace

std::string_view unit_suffixes(Unit unit) {
  switch (unit) {
    case Unit::count:
    case Unit::rate: return "K M B T (powers of 1000), Ki Mi Gi Ti (powers of 1024)";
    case Unit::positions: return "Ki Mi (powers of 1024)";
    case Unit::hours: return "h (assumed), min, s, d, K M (thousands, millions of hours)";
    case Unit::minutes: return "min (assumed), s, h, d";
    case Unit::seconds: return "s (assumed), ms, us, ns, min, h, d";
    case Unit::bytes: return "B (assumed), KB MB GB TB, KiB MiB GiB TiB";
    case Unit::fraction: return "%";
    case Unit::watts: return "W (assumed), kW";
    case Unit::usd: return "$";
    case Unit::none: break;
  }
  return {};
}

Quantity parse_quantity(std::string_view text, Unit unit) { return parse(text, unit, false); }

WholeQuantity parse_whole(std::string_view text, Unit unit) {
  const Quantity parsed = parse(text, unit, true);
  if (!parsed.mistake.empty()) return {0, parsed.mistake};
  constexpr double kLost = 9007199254740992.0;  // 2^53: from there on not every whole number is a double
  if (std::abs(parsed.value) >= kLost) return {0, "is too large for a whole number: 9007199254740991 is the most"};
  if (parsed.value != std::floor(parsed.value)) return {0, "must be a whole number"};
  return {static_cast<std::int64_t>(parsed.value), {}};
}

std::string print_quantity(double value, Unit unit) {
  if (unit == Unit::count || unit == Unit::rate) {
    for (const std::string_view suffix : {"T", "B", "M"}) {
      for (const Suffix& known : kCount) {
        if (known.text != suffix || std::abs(value) < known.factor) continue;
        const std::string text = shortest(value / known.factor);
        if (text.size() <= 6 && text.find('e') == std::string::npos &&
            parse_quantity(text + std::string(suffix), unit).value == value) {
          return text + std::string(suffix);
        }
      }
    }
  }
  if (value == std::floor(value) && std::abs(value) < 1e15) return fmt::format("{:.0f}", value == 0 ? 0.0 : value);
  return shortest(value);
}

std::string rounded(double value, int digits) {
  if (!std::isfinite(value)) return value > 0 ? "unlimited" : "unknown";
  const double size = std::abs(value);
  if (size >= 1e5) {
    constexpr Suffix kLarge[] = {{"T", 1e12}, {"B", 1e9}, {"M", 1e6}, {"K", 1e3}};
    for (const Suffix& known : kLarge) {
      if (size >= known.factor && digits < 9) return fmt::format("{:.{}g}{}", value / known.factor, digits, known.text);
    }
  }
  if (size < 1e15 && (value == std::floor(value) || size >= std::pow(10, digits))) return fmt::format("{:.0f}", value);
  return fmt::format("{:.{}g}", value, digits);
}

}  // namespace shoestring
