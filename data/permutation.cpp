#include "data/permutation.h"

#include "kernels/base/check.h"

namespace shoestring {

ItemPermutation::ItemPermutation(std::uint64_t size, const Random& random, std::uint64_t index) : size_(size) {
  check(size >= 1 && size < std::uint64_t{1} << 62, "a permutation of {} items", size);
  const int bits = static_cast<int>(std::bit_width(size - 1));
  low_bits_ = (bits + 1) / 2;
  low_mask_ = (std::uint64_t{1} << low_bits_) - 1;
  high_mask_ = (std::uint64_t{1} << (bits - low_bits_)) - 1;
  const RandomBits words = random.bits(index);
  for (int round = 0; round < kRounds; ++round) {
    key_[round] = words.word[round % 4] + static_cast<std::uint32_t>(round / 4) * 0x9E3779B9u;
  }
}

}  // namespace shoestring
