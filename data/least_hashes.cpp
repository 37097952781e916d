#include "data/least_hashes.h"

#include <algorithm>

#include "kernels/base/cpu.h"

namespace shoestring::least_hashes {
namespace {

Family make_family() {
  std::uint64_t state = 0x9E3779B97F4A7C15u;
  const auto next = [&state] {  // SplitMix64
    std::uint64_t z = (state += 0x9E3779B97F4A7C15u);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return static_cast<std::uint32_t>((z ^ (z >> 31)) >> 32);
  };
  Family made;
  for (std::size_t i = 0; i < made.a.size(); ++i) {
    made.a[i] = next() | 1;
    made.b[i] = next();
  }
  return made;
}

}  // namespace

const Family& family() {
  static const Family made = make_family();
  return made;
}

void portable::take(std::span<const std::uint32_t> shingles, std::array<std::uint32_t, kHashes>& least) {
  const Family& hashes = family();
  for (const std::uint32_t shingle : shingles) {
    for (std::size_t i = 0; i < least.size(); ++i) {
      least[i] = std::min(least[i], hashes.a[i] * shingle + hashes.b[i]);
    }
  }
}

void take(std::span<const std::uint32_t> shingles, std::array<std::uint32_t, kHashes>& least) {
  cpu_features().vectors() ? simd::take(shingles, least) : portable::take(shingles, least);
}

}  // namespace shoestring::least_hashes
