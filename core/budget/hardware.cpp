#include "core/budget/hardware.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <vector>

#include "core/recipe/installed.h"
#include "core/recipe/names.h"
#include "core/recipe/scan.h"
#include "core/recipe/units.h"
#include "kernels/base/check.h"
#include "kernels/base/file.h"

namespace shoestring {
namespace {

constexpr std::size_t kMostListed = 100;  // mistakes in an error's text
constexpr std::string_view kFormatNames[] = {"fp64", "fp32", "bf16", "fp8"};

/// One key of a hardware file: a number with its unit, or text (unit none).
struct HardwareKey {
  std::string dotted;
  Unit unit = Unit::none;
  std::function<double&(Hardware&)> number;
  std::function<std::string&(Hardware&)> text;
};

std::vector<HardwareKey> build_keys() {
  std::vector<HardwareKey> keys;
  const auto text = [&](const char* dotted, std::string Hardware::*member) {
    keys.push_back({dotted, Unit::none, {}, [member](Hardware& hardware) -> std::string& { return hardware.*member; }});
  };
  const auto number = [&](const char* dotted, Unit unit, double Hardware::*member) {
    keys.push_back({dotted, unit, [member](Hardware& hardware) -> double& { return hardware.*member; }, {}});
  };
  text("device.description", &Hardware::description);
  text("device.source", &Hardware::source);
  text("device.date", &Hardware::date);
  number("device.memory", Unit::bytes, &Hardware::memory_bytes);
  number("device.memory_bandwidth", Unit::bytes, &Hardware::memory_bytes_per_second);
  number("device.watts", Unit::watts, &Hardware::watts);
  for (int i = 0; i < kRateFormats; ++i) {
    const auto format = static_cast<RateFormat>(i);
    const auto rate = [&](const char* kind, PerFormat Hardware::*member, Unit unit = Unit::rate) {
      keys.push_back({fmt::format("flops.{}_{}", kFormatNames[i], kind),
                      unit,
                      [member, format](Hardware& hardware) -> double& { return (hardware.*member)[format]; },
                      {}});
    };
    rate("peak", &Hardware::peak_flops);
    rate("achievable", &Hardware::achievable_flops);
    rate("half_extent", &Hardware::half_extent, Unit::count);
  }
  text("flops.achievable_source", &Hardware::achievable_source);
  text("flops.extent_source", &Hardware::extent_source);
  number("link.devices_per_node", Unit::count, &Hardware::devices_per_node);
  number("link.peer_bandwidth", Unit::bytes, &Hardware::peer_bytes_per_second);
  number("link.peer_latency", Unit::seconds, &Hardware::peer_latency_seconds);
  number("link.network_bandwidth", Unit::bytes, &Hardware::network_bytes_per_second);
  number("link.network_latency", Unit::seconds, &Hardware::network_latency_seconds);
  number("price.usd_low", Unit::usd, &Hardware::usd_low);
  number("price.usd_high", Unit::usd, &Hardware::usd_high);
  text("price.source", &Hardware::price_source);
  text("price.date", &Hardware::price_date);
  return keys;
}

const std::vector<HardwareKey>& hardware_keys() {
  static const std::vector<HardwareKey> keys = build_keys();
  return keys;
}

/// Three digits, in the unit's most usual form.
std::string printed(double value, Unit unit) {
  switch (unit) {
    case Unit::bytes: return fmt::format("{:.3g}GB", value * 1e-9);
    case Unit::rate: return fmt::format("{:.3g}G", value * 1e-9);
    case Unit::seconds: return fmt::format("{:.3g}us", value * 1e6);
    default: return fmt::format("{:.3g}", value);
  }
}

const HardwareKey* find(const std::string& dotted) {
  for (const HardwareKey& key : hardware_keys()) {
    if (key.dotted == dotted) return &key;
  }
  return nullptr;
}

/// Takes one entry; returns what is wrong with it. What might have been meant is looked up where it is `listed`.
std::string take(const Entry& entry, bool listed, Hardware& hardware) {
  const HardwareKey* key = find(entry.dotted());
  if (key == nullptr) {
    std::vector<std::string_view> words;
    for (const HardwareKey& known : hardware_keys()) {
      if (listed) words.push_back(known.dotted);
    }
    const std::string_view near = nearest_word(entry.dotted(), words);
    return fmt::format("unknown key {}{}", quote_name(entry.dotted()),
                       near.empty() ? "" : fmt::format("; did you mean '{}'?", near));
  }
  if (key->text) {
    key->text(hardware) = entry.value;
    return {};
  }
  const Quantity parsed = parse_quantity(entry.value, key->unit);
  const std::string wrong = !parsed.mistake.empty() ? parsed.mistake : parsed.value < 0 ? "must not be negative" : "";
  if (!wrong.empty()) return fmt::format("{} = {} {}", entry.dotted(), quote_text(entry.value), wrong);
  key->number(hardware) = parsed.value;
  return {};
}

/// A figure without its source is no figure.
std::vector<std::string> missing_sources(const Hardware& hardware) {
  std::vector<std::string> missing;
  const auto demand = [&](bool given, const std::string& source, const char* text) {
    if (given && source.empty()) missing.emplace_back(text);
  };
  bool peak = false;
  bool achievable = false;
  bool curve = false;
  for (int i = 0; i < kRateFormats; ++i) {
    const auto format = static_cast<RateFormat>(i);
    peak = peak || hardware.peak_flops[format] > 0;
    achievable = achievable || hardware.achievable_flops[format] > 0;
    curve = curve || hardware.half_extent[format] > 0;
    if (hardware.half_extent[format] > 0 && hardware.achievable_flops[format] <= 0) {
      missing.push_back(
          fmt::format("flops.{0}_half_extent bends flops.{0}_achievable, which is missing", kFormatNames[i]));
    }
    if (hardware.achievable_flops[format] > hardware.peak_flops[format] && hardware.peak_flops[format] > 0) {
      missing.push_back(fmt::format("flops.{}_achievable is above its peak", kFormatNames[i]));
    }
  }
  demand(peak, hardware.source, "device.source is missing: where the specification stands");
  demand(peak, hardware.date, "device.date is missing");
  demand(achievable, hardware.achievable_source, "flops.achievable_source is missing: measured, or whose figure");
  demand(curve, hardware.extent_source, "flops.extent_source is missing: measured, or whose curve");
  if (hardware.devices_per_node != std::floor(hardware.devices_per_node)) {
    missing.emplace_back("link.devices_per_node must be whole");
  }
  demand(hardware.usd_high > 0, hardware.price_source, "price.source is missing");
  demand(hardware.usd_high > 0, hardware.price_date, "price.date is missing");
  if (hardware.usd_low > hardware.usd_high) missing.emplace_back("price.usd_low is above price.usd_high");
  return missing;
}

}  // namespace

std::string_view name(RateFormat format) { return kFormatNames[static_cast<std::size_t>(format)]; }

Hardware read_hardware(const std::filesystem::path& file) {
  const Scan scan = scan_text(read_small_file(file), file.string());
  std::vector<std::string> wrong;
  for (const Mistake& mistake : scan.mistakes) wrong.push_back(mistake.line());
  for (const Entry& entry : scan.includes) wrong.push_back(entry.origin.place() + ": a hardware file includes nothing");
  Hardware hardware;
  hardware.name = file.stem().string();
  std::map<std::string, int> seen;
  for (const Entry& entry : scan.entries) {
    std::string mistake = take(entry, wrong.size() < kMostListed, hardware);
    const auto [first, fresh] = seen.emplace(entry.dotted(), entry.origin.line);
    if (!fresh) mistake = fmt::format("{} is given again; first on line {}", entry.dotted(), first->second);
    if (!mistake.empty()) wrong.push_back(fmt::format("{}: {}", entry.origin.place(), mistake));
  }
  if (wrong.empty()) {
    for (const std::string& text : missing_sources(hardware))
      wrong.push_back(fmt::format("{}: {}", file.string(), text));
  }
  if (wrong.empty()) return hardware;
  std::string text = fmt::format("{} is no valid hardware file:", file.string());
  for (std::size_t i = 0; i < wrong.size() && i < kMostListed; ++i) text += "\n  " + wrong[i];
  throw Error(ExitCode::bad_recipe, text);
}

std::string hardware_text(const Hardware& hardware) {
  Hardware values = hardware;  // keys point into what they may write
  std::string text;
  std::string section;
  for (const HardwareKey& key : hardware_keys()) {
    const std::string value = key.text                  ? key.text(values)
                              : key.number(values) == 0 ? std::string()
                                                        : printed(key.number(values), key.unit);
    if (value.empty()) continue;
    const std::size_t dot = key.dotted.find('.');
    if (const std::string of = key.dotted.substr(0, dot); of != section) {
      text += fmt::format("{}[{}]\n", text.empty() ? "" : "\n", of);
      section = of;
    }
    text += fmt::format("{} = {}\n", key.dotted.substr(dot + 1), value);
  }
  return text;
}

namespace {

std::vector<std::filesystem::path> hardware_folders(const std::filesystem::path& recipe_folder) {
  std::vector<std::filesystem::path> folders = {recipe_folder / "hardware"};
  for (const std::filesystem::path& recipes : installed_recipe_folders()) folders.push_back(recipes / "hardware");
  return folders;
}

}  // namespace

std::vector<std::string> hardware_names(const std::filesystem::path& recipe_folder) {
  std::vector<std::string> names;
  for (const std::filesystem::path& folder : hardware_folders(recipe_folder)) {
    if (type_of(folder) != std::filesystem::file_type::directory) continue;
    for (const std::filesystem::path& entry : list_directory(folder)) {
      if (entry.extension() == ".hardware") names.push_back(entry.stem().string());
    }
  }
  std::sort(names.begin(), names.end());
  names.erase(std::unique(names.begin(), names.end()), names.end());
  return names;
}

std::filesystem::path find_hardware(std::string_view name, const std::filesystem::path& recipe_folder) {
  std::string places;
  for (const std::filesystem::path& folder : hardware_folders(recipe_folder)) {
    const std::filesystem::path file = folder / fmt::format("{}.hardware", name);
    if (type_of(file) == std::filesystem::file_type::regular) return file;
    places += fmt::format("\n  {}", file.string());
  }
  const std::vector<std::string> present = hardware_names(recipe_folder);
  const std::vector<std::string_view> words(present.begin(), present.end());
  const std::string_view near = nearest_word(name, words);
  fail(ExitCode::missing_input, "there is no hardware {}{}; looked for{}", quote_name(name),
       near.empty() ? "" : fmt::format(" (did you mean '{}'?)", near), places);
}

}  // namespace shoestring
