// The portable loop with the 64 least values in registers. Compiled once for each instruction set.
#include <algorithm>

#include "data/least_hashes.h"

#include "kernels/simd_target.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "data/least_hashes_simd.cpp"
#include <hwy/foreach_target.h>

#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace shoestring::least_hashes::HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;
using Lanes = hn::CappedTag<std::uint32_t, 16>;
constexpr std::size_t kLanes = hn::MaxLanes(Lanes());
constexpr std::size_t kVectors = kHashes / kLanes;

}  // namespace

// Two shingles at a time, so that a and b are loaded half as often; the last one twice where their number is odd.
void take(std::span<const std::uint32_t> shingles, std::array<std::uint32_t, kHashes>& least) {
  const Lanes lanes;
  const Family& hashes = family();
  hn::Vec<Lanes> lowest[kVectors];
  for (std::size_t v = 0; v < kVectors; ++v) lowest[v] = hn::LoadU(lanes, least.data() + v * kLanes);
  for (std::size_t i = 0; i < shingles.size(); i += 2) {
    const auto x = hn::Set(lanes, shingles[i]);
    const auto y = hn::Set(lanes, shingles[std::min(i + 1, shingles.size() - 1)]);
    for (std::size_t v = 0; v < kVectors; ++v) {
      const auto a = hn::Load(lanes, hashes.a.data() + v * kLanes);
      const auto b = hn::Load(lanes, hashes.b.data() + v * kLanes);
      const auto both = hn::Min(hn::Add(hn::Mul(x, a), b), hn::Add(hn::Mul(y, a), b));
      lowest[v] = hn::Min(lowest[v], both);
    }
  }
  for (std::size_t v = 0; v < kVectors; ++v) hn::StoreU(lowest[v], lanes, least.data() + v * kLanes);
}

}  // namespace shoestring::least_hashes::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace shoestring::least_hashes::simd {

void take(std::span<const std::uint32_t> shingles, std::array<std::uint32_t, kHashes>& least) {
  SHOESTRING_SIMD(take)(shingles, least);
}

}  // namespace shoestring::least_hashes::simd
#endif
