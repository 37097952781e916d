// Internal to near_duplicates: the least values of 64 hashes over the shingles of a text.
//
// Hash i of a shingle x is a[i] x + b[i] mod 2^32, a[i] odd: a permutation of the shingles' own 32-bit hashes, which
// are mixed well (Broder, Charikar, Frieze and Mitzenmacher, "Min-wise independent permutations", 2000, section 5, on
// linear ones).
#pragma once

#include <array>
#include <cstdint>
#include <span>

namespace shoestring::least_hashes {

inline constexpr int kHashes = 64;

struct Family {
  alignas(64) std::array<std::uint32_t, kHashes> a{};
  alignas(64) std::array<std::uint32_t, kHashes> b{};
};
const Family& family();

/// least[i] becomes the least of itself and hash i of all shingles: the same numbers on every processor.
using Take = void(std::span<const std::uint32_t> shingles, std::array<std::uint32_t, kHashes>& least);
Take take;
namespace portable {
Take take;
}
namespace simd {  // where cpu_features().vectors()
Take take;
}

}  // namespace shoestring::least_hashes
