// Collecting what contradicts itself in a recipe. Internal to validate.
#pragma once

#include <algorithm>
#include <initializer_list>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "core/recipe/parse.h"
#include "core/recipe/recipe.h"

namespace shoestring {

/// Collects broken rules. A rule names the keys it rests on: the first one given in a file is blamed, and the rule is
/// silent when one of them is mistaken already.
class Rules {
 public:
  using Keys = std::initializer_list<std::string>;

  Rules(const Origins& origins, const std::vector<Mistake>& wrong) : origins_(origins) {
    for (const Mistake& mistake : wrong) wrong_.insert(mistake.key);
  }

  bool given(const std::string& key) const { return origins_.contains(key); }

  /// Where `key` was written: Origin::layer.
  int layer(const std::string& key) const {
    const auto place = origins_.find(key);
    return place != origins_.end() ? place->second.layer : kUnwrittenLayer;
  }

  bool blamed(const std::string& key) const {
    return std::any_of(found_.begin(), found_.end(), [&](const Mistake& mistake) { return mistake.key == key; });
  }

  void unless(bool holds, Keys keys, std::string text) {
    if (holds) return;
    if (std::any_of(keys.begin(), keys.end(), [&](const std::string& key) { return wrong_.contains(key); })) return;
    found_.push_back({blame(keys), *keys.begin(), std::move(text)});
  }

  std::vector<Mistake> take() { return std::move(found_); }

 private:
  Origin blame(Keys keys) const {
    for (const std::string& key : keys) {
      if (const auto place = origins_.find(key); place != origins_.end()) return place->second;
    }
    const std::string section = keys.begin()->substr(0, keys.begin()->rfind('.'));
    const auto place = origins_.find(section);  // something is missing: its section's header, if there is one
    return place != origins_.end() ? place->second : Origin{};
  }

  const Origins& origins_;
  std::set<std::string> wrong_;
  std::vector<Mistake> found_;
};

/// Lengths, batches, objectives and mixtures of the phases.
void check_phases(const Recipe& recipe, Rules& rules);
/// Keys that have a value of their own and that nothing reads, because of what another key says.
void check_unread_keys(const Recipe& recipe, Rules& rules);
/// A schedule that cannot come to its end: what depends on the budget's speed is told by the run.
void check_schedule(const Recipe& recipe, Rules& rules);

}  // namespace shoestring
