// Stateless shuffles: where item i of n goes, computed from a key, with nothing stored.
//
// A Feistel network permutes the smallest power of two that holds n; values that fall outside are sent through again
// until they land inside (cycle walking: under two passes on average). The round keys come from Philox, the round
// function is a multiply-and-mix of 64 bits.
#pragma once

#include <bit>
#include <cstdint>

#include "kernels/base/random.h"

namespace shoestring {

class ItemPermutation {
 public:
  /// Of 0 .. size - 1 (size >= 1), keyed by `index` of the stream `random`.
  ItemPermutation(std::uint64_t size, const Random& random, std::uint64_t index);

  /// Where `item` goes; a bijection on 0 .. size - 1.
  std::uint64_t operator()(std::uint64_t item) const {
    if (size_ < 2) return 0;
    do {
      item = rounds(item);
    } while (item >= size_);
    return item;
  }

 private:
  static constexpr int kRounds = 6;

  static std::uint64_t mix(std::uint64_t value, std::uint32_t key) {
    value = (value ^ key) * 0x9E3779B97F4A7C15u;
    value = (value ^ (value >> 29)) * 0xBF58476D1CE4E5B9u;
    return value >> 32;
  }
  std::uint64_t rounds(std::uint64_t item) const {
    std::uint64_t low = item & low_mask_;
    std::uint64_t high = item >> low_bits_;
    for (int round = 0; round < kRounds; round += 2) {
      low ^= mix(high + 1, key_[round]) & low_mask_;
      high ^= mix(low + 1, key_[round + 1]) & high_mask_;
    }
    return high << low_bits_ | low;
  }

  std::uint64_t size_;
  int low_bits_;
  std::uint64_t low_mask_;
  std::uint64_t high_mask_;
  std::uint32_t key_[kRounds];
};

}  // namespace shoestring
