#include "kernels/base/random.h"

#include <cmath>
#include <numbers>

namespace shoestring {

double Random::normal(std::uint64_t index) const {
  const RandomBits b = bits(index);
  const auto unit = [](std::uint32_t high, std::uint32_t low) {
    const std::uint64_t word = static_cast<std::uint64_t>(high) << 32 | low;
    return (static_cast<double>(word >> 11) + 0.5) * 0x1.0p-53;  // in (0, 1): the logarithm stays finite
  };
  return std::sqrt(-2.0 * std::log(unit(b.word[1], b.word[0]))) *
         std::cos(2.0 * std::numbers::pi * unit(b.word[3], b.word[2]));
}

}  // namespace shoestring
