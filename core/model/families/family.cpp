#include "core/model/families/family.h"

#include <fmt/core.h>

#include <array>
#include <cmath>

#include "kernels/base/check.h"

namespace shoestring {

void Findings::unless(bool holds, std::string_view key, std::string text) {
  if (!holds) problems_.push_back({fmt::format("model.{}", key), std::move(text)});
}

void Findings::range(std::string_view key, std::int64_t value, std::int64_t least, std::int64_t most) {
  unless(value >= least && value <= most, key, fmt::format("must lie between {} and {}, is {}", least, most, value));
}

void Findings::positive(std::string_view key, double value) {
  unless(std::isfinite(value) && value > 0, key, fmt::format("must be above 0, is {}", value));
}

void Findings::not_negative(std::string_view key, double value) {
  unless(std::isfinite(value) && value >= 0, key, fmt::format("must not be negative, is {}", value));
}

std::span<const Family* const> families() {
  static constexpr std::array<const Family*, 6> kFamilies = {
      &kLlama, &kQwen2, &kQwen3, &kQwen3Moe, &kDeepSeekV2, &kDeepSeekV3,
  };
  return kFamilies;
}

const Family& family_of(Architecture architecture) {
  for (const Family* family : families()) {
    if (family->architecture == architecture) return *family;
  }
  fail(ExitCode::bug, "no family of architecture {}", static_cast<int>(architecture));
}

}  // namespace shoestring
