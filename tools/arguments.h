// Arguments of a command: positional words, options with a value, flags. Every mistake is a usage error (exit 64) that
// names the nearest right option and shows the command's usage.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "core/recipe/units.h"

namespace shoestring {

struct Option {
  std::string name;   ///< "out" for --out
  std::string value;  ///< what stands behind it in the help, "DIR"; empty: a flag
  std::string meaning;
};

/// What a command takes.
struct Usage {
  std::string command;     ///< "data build"
  std::string positional;  ///< "INPUT..."
  std::string summary;
  std::vector<Option> options;
  std::size_t least = 0;          ///< positional words needed
  std::size_t most = 0;           ///< and allowed
  bool recipe_overrides = false;  ///< also takes --section.key=value
};

class Arguments {
 public:
  /// Throws Error(usage). `--help` prints the help and sets `helped`.
  Arguments(const Usage& usage, const std::vector<std::string>& words);

  bool helped() const { return helped_; }
  const std::vector<std::string>& positional() const { return positional_; }
  const std::vector<std::string>& overrides() const { return overrides_; }
  bool has(const std::string& name) const { return options_.contains(name); }
  std::string text(const std::string& name, const std::string& otherwise = {}) const;
  // With the units of recipes: 4Mi, 5%, 30s.
  std::int64_t integer(const std::string& name, std::int64_t otherwise, std::int64_t least, std::int64_t most) const;
  double real(const std::string& name, double otherwise, double least, double most, Unit unit) const;

 private:
  std::string command_;
  bool helped_ = false;
  std::vector<std::string> positional_;
  std::vector<std::string> overrides_;
  std::map<std::string, std::string> options_;
};

}  // namespace shoestring
