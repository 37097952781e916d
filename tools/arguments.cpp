#include "tools/arguments.h"

#include <algorithm>
#include <boost/program_options.hpp>
#include <charconv>
#include <string_view>

#include "core/recipe/names.h"
#include "core/recipe/parse.h"
#include "core/recipe/scan.h"
#include "kernels/base/check.h"

namespace shoestring {
namespace {

namespace po = boost::program_options;

std::string help_of(const Usage& usage) {
  std::string text = fmt::format("usage: shoestring {} {}{}{}\n\n{}\n", usage.command, usage.positional,
                                 usage.options.empty() ? "" : " [options]",
                                 usage.recipe_overrides ? " [--section.key=value ...]" : "", usage.summary);
  if (!usage.options.empty()) text += "\noptions:\n";
  for (const Option& option : usage.options) {
    const std::string left = "--" + option.name + (option.value.empty() ? "" : " " + option.value);
    text += fmt::format("  {:<28} {}\n", left, option.meaning);
  }
  return text;
}

[[noreturn]] void refuse(const Usage& usage, const std::string& why) {
  fail(ExitCode::usage, "{}\nSee: shoestring {} --help", why, usage.command);
}

std::vector<std::string_view> option_names(const Usage& usage) {
  std::vector<std::string_view> names;
  for (const Option& option : usage.options) names.push_back(option.name);
  return names;
}

}  // namespace

Arguments::Arguments(const Usage& usage, const std::vector<std::string>& words) : command_(usage.command) {
  po::options_description description;
  description.add_options()("help,h", "");
  for (const Option& option : usage.options) {
    if (option.value.empty()) {
      description.add_options()(option.name.c_str(), "");
    } else {
      description.add_options()(option.name.c_str(), po::value<std::string>(), "");
    }
  }
  description.add_options()("word", po::value<std::vector<std::string>>(), "");
  po::positional_options_description positional;
  positional.add("word", -1);

  std::vector<std::string> own;
  for (const std::string& word : words) {
    (usage.recipe_overrides && looks_like_override(word) ? overrides_ : own).push_back(word);
  }
  po::variables_map values;
  try {
    const int style = po::command_line_style::default_style & ~po::command_line_style::allow_guessing;
    po::store(po::command_line_parser(own).options(description).positional(positional).style(style).run(), values);
  } catch (const po::unknown_option& error) {
    const std::string name = error.get_option_name();
    const std::string bare = name.substr(std::min(name.find_first_not_of('-'), name.size()));
    if (usage.recipe_overrides && bare.find('.') != std::string::npos) {
      refuse(usage, bare.find('=') != std::string::npos
                        ? fmt::format("{} begins with one dash: write --{}", name, bare)
                        : fmt::format("{} gives no value: write --{}=VALUE", name, bare));
    }
    const std::string_view near = nearest_word(bare, option_names(usage));
    refuse(usage, fmt::format("unknown option {}{}", quote_name(name),
                              near.empty() ? "" : fmt::format("; did you mean --{}?", near)));
  } catch (const po::error& error) {
    refuse(usage, error.what());
  }
  if (values.contains("help")) {
    fmt::print("{}", help_of(usage));
    helped_ = true;
    return;
  }
  for (const Option& option : usage.options) {
    if (!values.contains(option.name)) continue;
    options_[option.name] = option.value.empty() ? "" : values[option.name].as<std::string>();
  }
  if (values.contains("word")) positional_ = values["word"].as<std::vector<std::string>>();
  if (positional_.size() < usage.least) refuse(usage, fmt::format("'{}' needs {}", usage.command, usage.positional));
  if (positional_.size() > usage.most) {
    refuse(usage, fmt::format("'{}' does not know what to do with '{}'", usage.command, positional_[usage.most]));
  }
}

std::string Arguments::text(const std::string& name, const std::string& otherwise) const {
  const auto found = options_.find(name);
  return found == options_.end() ? otherwise : found->second;
}

std::int64_t Arguments::integer(const std::string& name, std::int64_t otherwise, std::int64_t least,
                                std::int64_t most) const {
  if (!has(name)) return otherwise;
  const std::string value = text(name);
  WholeQuantity number;
  const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), number.value);
  if (error != std::errc() || end != value.data() + value.size()) number = parse_whole(value, Unit::count);
  if (!number.mistake.empty() || number.value < least || number.value > most) {
    fail(ExitCode::usage,
         "--{} takes a whole number from {} to {} (4K, 4Ki and so on are understood); give one instead of {}", name,
         least, most, quote_text(value));
  }
  return number.value;
}

double Arguments::real(const std::string& name, double otherwise, double least, double most, Unit unit) const {
  if (!has(name)) return otherwise;
  const std::string value = text(name);
  const Quantity number = parse_quantity(value, unit);
  if (!number.mistake.empty() || !(number.value >= least && number.value <= most)) {
    fail(ExitCode::usage, "--{} takes a number from {} to {}; {} {}", name, least, most, quote_text(value),
         number.mistake.empty() ? "must be one of these" : number.mistake);
  }
  return number.value;
}

}  // namespace shoestring
