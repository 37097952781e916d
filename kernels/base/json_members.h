// The members of a JSON object and how a key among them is found. For json.cpp and json_reader.cpp alone.
#pragma once

#include <algorithm>
#include <numeric>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/base/json.h"

namespace shoestring {

struct Json::Members {
  static constexpr std::size_t kIndexFrom = 8;  // members; fewer are found as fast by looking at each

  std::vector<Member> list;          // in order of writing
  std::vector<std::uint32_t> order;  // by key, of a parsed object with many; empty otherwise

  const Member* find(std::string_view key) const {
    if (order.size() != list.size()) {
      const auto found =
          std::find_if(list.begin(), list.end(), [&](const Member& member) { return member.key == key; });
      return found == list.end() ? nullptr : &*found;
    }
    const auto found =
        std::lower_bound(order.begin(), order.end(), key,
                         [this](std::uint32_t at, std::string_view text) { return list[at].key < text; });
    return found == order.end() || list[*found].key != key ? nullptr : &list[*found];
  }

  /// Makes every key findable; a key that stands there twice.
  const std::string* seal() {
    if (list.size() <= kIndexFrom) {
      for (std::size_t i = 1; i < list.size(); ++i) {
        for (std::size_t j = 0; j < i; ++j) {
          if (list[i].key == list[j].key) return &list[i].key;
        }
      }
      return nullptr;
    }
    order.resize(list.size());
    std::iota(order.begin(), order.end(), 0U);
    std::sort(order.begin(), order.end(),
              [this](std::uint32_t a, std::uint32_t b) { return list[a].key < list[b].key; });
    const auto twice = std::adjacent_find(
        order.begin(), order.end(), [this](std::uint32_t a, std::uint32_t b) { return list[a].key == list[b].key; });
    return twice == order.end() ? nullptr : &list[*twice].key;
  }
};

}  // namespace shoestring
