// Random numbers without state: a value is a function of (seed, purpose, index), on host and device alike.
//
// The generator is Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC11). There is no
// state to save, to lose on resume, or to share between ranks; who asks for index 7 gets the same bits everywhere.
#pragma once

#include <cstdint>

#include "kernels/base/dtype.h"

namespace shoestring {

/// What a stream of random numbers is for; keeps independent uses independent.
enum class Purpose : std::uint32_t {
  weight_init = 1,
  document_order = 2,
  mixture = 3,
  fill_in_middle = 4,
  sampling = 5,
  stochastic_rounding = 6,
  hold_out = 7,
  test = 100,
};

struct RandomBits {
  std::uint32_t word[4];
};

/// One Philox4x32-10 block.
SHOESTRING_HOST_DEVICE inline RandomBits philox(RandomBits counter, std::uint32_t key0, std::uint32_t key1) {
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t a = std::uint64_t{0xD2511F53u} * counter.word[0];
    const std::uint64_t b = std::uint64_t{0xCD9E8D57u} * counter.word[2];
    counter = {{static_cast<std::uint32_t>(b >> 32) ^ counter.word[1] ^ key0, static_cast<std::uint32_t>(b),
                static_cast<std::uint32_t>(a >> 32) ^ counter.word[3] ^ key1, static_cast<std::uint32_t>(a)}};
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
  return counter;
}

class Random {
 public:
  /// `stream` separates sequences of one purpose: a tensor's number, an epoch, a source.
  SHOESTRING_HOST_DEVICE Random(std::uint64_t seed, Purpose purpose, std::uint32_t stream = 0)
      : seed_(seed), purpose_(static_cast<std::uint32_t>(purpose)), stream_(stream) {}

  /// Four independent words for `index`.
  SHOESTRING_HOST_DEVICE RandomBits bits(std::uint64_t index) const {
    return philox({{static_cast<std::uint32_t>(index), static_cast<std::uint32_t>(index >> 32), purpose_, stream_}},
                  static_cast<std::uint32_t>(seed_), static_cast<std::uint32_t>(seed_ >> 32));
  }
  SHOESTRING_HOST_DEVICE std::uint64_t u64(std::uint64_t index) const {
    const RandomBits b = bits(index);
    return static_cast<std::uint64_t>(b.word[1]) << 32 | b.word[0];
  }
  /// Uniform in [0, 1), 53 bits.
  SHOESTRING_HOST_DEVICE double uniform(std::uint64_t index) const {
    return static_cast<double>(u64(index) >> 11) * 0x1.0p-53;
  }
  /// Uniform in [0, bound), bias below 2^-64 * bound.
  SHOESTRING_HOST_DEVICE std::uint64_t below(std::uint64_t index, std::uint64_t bound) const {
    return static_cast<std::uint64_t>(static_cast<unsigned __int128>(u64(index)) * bound >> 64);
  }
  /// Standard normal (Box-Muller); host only, since libm and CUDA round differently.
  double normal(std::uint64_t index) const;

 private:
  std::uint64_t seed_;
  std::uint32_t purpose_;
  std::uint32_t stream_;
};

}  // namespace shoestring
