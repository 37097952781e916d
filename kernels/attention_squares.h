// How attention in vectors lays its matrices: in squares. For that variant only.
//
// A panel of a product reads its left operand along rows or along columns and its right one sixteen columns at a time.
// Squares of 16 x 16 floats serve both: whatever the direction, a panel walks through whole cache lines, one kilobyte
// after the other, and a matrix is turned square by square.
#pragma once

#include <cstdint>

#include "kernels/attention_variants.h"

namespace shoestring::attention::simd {

inline constexpr std::int64_t kSquare = 16;
inline constexpr std::int64_t kQueries = 32;       ///< of one step of the forward pass
inline constexpr std::int64_t kForwardKeys = 128;  ///< keys between two corrections of the running maximum
inline constexpr std::int64_t kBlock = 64;         ///< keys and queries of one step of the backward pass

/// A matrix in squares, of which those below each other are neighbours: element (r, c) at
/// data[r * 16 + c / 16 * across + c % 16].
struct Squares {
  float* data;
  std::int64_t across;  ///< floats from a square to the one on its right

  /// The part whose first element is (row, column); both multiples of 16.
  Squares from(std::int64_t row, std::int64_t column) const {
    return {data + row * kSquare + column / kSquare * across, across};
  }
};

/// Hands out matrices of one worker's scratch; with no scratch it counts what they need.
class SquaresTaker {
 public:
  explicit SquaresTaker(float* scratch) : scratch_(scratch) {}
  Squares take(std::int64_t rows, std::int64_t columns) { return {take(rows * columns), rows * kSquare}; }
  float* take(std::int64_t floats) {
    float* taken = scratch_ == nullptr ? nullptr : scratch_ + floats_;
    floats_ += round_up(floats, kSquare);
    return taken;
  }
  std::int64_t floats() const { return floats_; }

 private:
  float* scratch_;
  std::int64_t floats_ = 0;
};

struct ForwardScratch {
  Squares k;       // [longest][qk]
  Squares v;       // [longest][v]
  Squares q_rows;  // [32][qk]
  Squares q;       // [qk][32]
  Squares o;       // [v][32]
  Squares scores;  // [128 keys][32]
  std::int64_t floats;

  ForwardScratch(float* at, const Extents& e) {
    SquaresTaker taker(at);
    k = taker.take(e.longest, e.qk_dim);
    v = taker.take(e.longest, e.v_dim);
    q_rows = taker.take(kQueries, e.qk_dim);
    q = taker.take(e.qk_dim, kQueries);
    o = taker.take(e.v_dim, kQueries);
    scores = taker.take(kForwardKeys, kQueries);
    floats = taker.floats();
  }
};

struct BackwardScratch {
  Squares k, v;     // [longest][dim]
  Squares q_rows;   // [longest][qk]
  Squares q;        // [qk][longest]
  Squares do_rows;  // [longest][v]
  Squares d_o;      // [v][longest]
  Squares dq;       // [qk][longest]
  Squares dk, dv;   // [longest][dim]
  Squares p, ds;    // [64 keys][64 queries]
  float* lse;       // [longest] lse * log2(e)
  float* delta;     // [longest] d_o . o
  std::int64_t floats;

  BackwardScratch(float* at, const Extents& e) {
    SquaresTaker taker(at);
    k = taker.take(e.longest, e.qk_dim);
    v = taker.take(e.longest, e.v_dim);
    q_rows = taker.take(e.longest, e.qk_dim);
    q = taker.take(e.qk_dim, e.longest);
    do_rows = taker.take(e.longest, e.v_dim);
    d_o = taker.take(e.v_dim, e.longest);
    dq = taker.take(e.qk_dim, e.longest);
    dk = taker.take(e.longest, e.qk_dim);
    dv = taker.take(e.longest, e.v_dim);
    p = taker.take(kBlock, kBlock);
    ds = taker.take(kBlock, kBlock);
    lse = taker.take(e.longest);
    delta = taker.take(e.longest);
    floats = taker.floats();
  }
};

}  // namespace shoestring::attention::simd
