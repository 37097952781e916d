// Inside of gemm_amx.cpp, included behind its target pragma and <immintrin.h>: a step of k on 2 x 2 sum tiles.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/gemm_problem.h"

namespace shoestring::gemm_detail::amx {
namespace {

inline constexpr std::int64_t kRows = 32;
inline constexpr std::int64_t kStep = 32;  // of k in one tile
inline constexpr std::int64_t kTileBytes = 1024;
inline constexpr std::int64_t kStepBytes = 2 * kTileBytes;
inline constexpr std::int64_t kStripFloats = kRows * kPanel;  // the sums of a row block, row by row

// Every tile operation names all memory: the compiler then leaves vector work and prefetches between the tile products
// where they are written, which is what hides them.
template <int kTile>
[[gnu::always_inline]] inline void tile_load(const void* from, std::int64_t row_bytes = 64) {
  asm volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(from), "r"(row_bytes), "i"(kTile) : "memory");
}
template <int kTile>
[[gnu::always_inline]] inline void tile_stream(const void* from, std::int64_t row_bytes) {
  asm volatile("tileloaddt1 (%0,%1,1), %%tmm%c2" ::"r"(from), "r"(row_bytes), "i"(kTile) : "memory");
}
template <int kTile>
[[gnu::always_inline]] inline void tile_store(void* to, std::int64_t row_bytes) {
  asm volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(to), "r"(row_bytes), "i"(kTile) : "memory");
}
template <int kTile>
[[gnu::always_inline]] inline void tile_zero() {
  asm volatile("tilezero %%tmm%c0" ::"i"(kTile));
}
template <int kSum, int kLeft, int kRight>
[[gnu::always_inline]] inline void tile_product() {
  asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(kSum), "i"(kLeft), "i"(kRight) : "memory");
}

// Tiles 0..3 are sums (0,0) (0,1) (1,0) (1,1), 4 and 5 left, 6 and 7 right.
inline constexpr std::int64_t kStripRowBytes = 4 * kPanel;
template <int kTile>
inline constexpr std::int64_t kPlaceInStrip = kTile / 2 * 16 * kPanel + kTile % 2 * 16;

[[gnu::always_inline]] inline void store_sums(float* strip) {
  tile_store<0>(strip + kPlaceInStrip<0>, kStripRowBytes);
  tile_store<1>(strip + kPlaceInStrip<1>, kStripRowBytes);
  tile_store<2>(strip + kPlaceInStrip<2>, kStripRowBytes);
  tile_store<3>(strip + kPlaceInStrip<3>, kStripRowBytes);
}

/// How the two left tiles of a step of k lie in memory.
struct Left {
  std::int64_t row_bytes;
  std::int64_t tile_bytes;
  std::int64_t step_bytes;
};
inline constexpr Left kPacked{64, kTileBytes, kStepBytes};

/// What a step's sums are added to.
enum class Sums : std::uint8_t {
  go_on,  ///< those in the tiles
  begin,  ///< nothing, or a strip; those in the tiles are stored. Each in front of the product that needs its tile: so
          ///< they cost nothing, while four stores behind the last products stop the tile unit for 65 cycles
};

/// Where the sums in the tiles go, and the strip that the next begin from; nullptr: from zero.
struct TurnOver {
  float* done = nullptr;
  const float* from = nullptr;
};

template <int kTile, Sums kSums>
[[gnu::always_inline]] inline void turn_over(const TurnOver& turn) {
  if constexpr (kSums == Sums::begin) {
    tile_store<kTile>(turn.done + kPlaceInStrip<kTile>, kStripRowBytes);
    if (turn.from == nullptr) {
      tile_zero<kTile>();
    } else {
      tile_load<kTile>(turn.from + kPlaceInStrip<kTile>, kStripRowBytes);
    }
  }
}

/// Operands of a row block, at a step of k.
struct Operands {
  const std::byte* a;
  Left left;
  const std::byte* b;
  bool two;  ///< more than sixteen rows
};

/// One step of k: sums += left * right, with the work `beside` between the products; then on to the next. The left
/// tiles are streamed, they shall not displace what L1 holds. `kIndex` of the step is for `beside`.
template <int kIndex, Sums kSums, class Work>
[[gnu::always_inline]] inline void multiply_step(Operands& at, const TurnOver& turn, Work& beside) {
  tile_load<6>(at.b);
  tile_load<7>(at.b + kTileBytes);
  tile_stream<4>(at.a, at.left.row_bytes);
  turn_over<0, kSums>(turn);
  tile_product<0, 4, 6>();
  beside.template after<kIndex, 0>();
  turn_over<1, kSums>(turn);
  tile_product<1, 4, 7>();
  beside.template after<kIndex, 1>();
  if (at.two) [[likely]]
    tile_stream<5>(at.a + at.left.tile_bytes, at.left.row_bytes);
  turn_over<2, kSums>(turn);
  if (at.two) [[likely]]
    tile_product<2, 5, 6>();
  beside.template after<kIndex, 2>();
  turn_over<3, kSums>(turn);
  if (at.two) [[likely]]
    tile_product<3, 5, 7>();
  beside.template after<kIndex, 3>();
  at.a += at.left.step_bytes;
  at.b += kStepBytes;
}

}  // namespace
}  // namespace shoestring::gemm_detail::amx
