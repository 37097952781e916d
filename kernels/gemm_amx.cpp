// The AMX machine: 2 x 2 sum tiles of 16 x 16, BF16 operands (8-bit ones are decoded exactly when they are packed).
//
// Idea: a panel's part of k stays in L1 while all row blocks of the worker pass by, streamed from L2. What follows a
// tile's sum (writing c, or promoting a block of k with its scales) is vector work on another port: it is spread over
// the tile products of the next row block, a few rows behind each step of k. Order of sums: one TDPBF16PS adds 32 of k
// as two FMA chains, even and odd; steps follow in order of k.
#include <algorithm>

#include "kernels/gemm_amx_pack.h"
#include "kernels/gemm_problem.h"

// GCC 12 takes the undefined source operand inside these intrinsics for a mistake of ours (its bug 105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#include <immintrin.h>

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,amx-tile,amx-bf16")

#include "kernels/gemm_amx_rows.h"

namespace shoestring::gemm_detail::amx {
namespace {

constexpr std::int64_t kRows = 32;
constexpr std::int64_t kStep = 32;  // of k in one tile
constexpr std::int64_t kTileBytes = 1024;
constexpr std::int64_t kStepBytes = 2 * kTileBytes;
constexpr std::int64_t kTileFloats = 256;
constexpr std::int64_t kStripFloats = 4 * kTileFloats;  // of one row block: tiles (0,0) (0,1) (1,0) (1,1)
constexpr std::int64_t kDepth = 512;                    // of k while sums stay in tiles: a panel's part is 32 KiB
constexpr std::int64_t kPromoted = 2;                   // blocks of scales whose sums wait together
constexpr std::int64_t kLag = 1;  // steps between storing sums and reading them: the last products must finish first

struct TileConfig {
  std::uint8_t palette = 1;
  std::uint8_t start_row = 0;
  std::uint8_t reserved[14] = {};
  std::uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  std::uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};
static_assert(sizeof(TileConfig) == 64);
alignas(64) constinit TileConfig tile_config;  // static storage: GCC 12 drops the fields of a local one

// Every tile operation names all memory: the compiler then leaves vector work and prefetches between the tile products
// where they are written, which is what hides them.
template <int kTile>
[[gnu::always_inline]] inline void tile_load(const void* from) {
  asm volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(from), "r"(std::int64_t{64}), "i"(kTile) : "memory");
}
template <int kTile>
[[gnu::always_inline]] inline void tile_stream(const void* from, std::int64_t row_bytes) {
  asm volatile("tileloaddt1 (%0,%1,1), %%tmm%c2" ::"r"(from), "r"(row_bytes), "i"(kTile) : "memory");
}
template <int kTile>
[[gnu::always_inline]] inline void tile_store(void* to) {
  asm volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(to), "r"(std::int64_t{64}), "i"(kTile) : "memory");
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
[[gnu::always_inline]] inline void store_sums(float* strip) {
  tile_store<0>(strip);
  tile_store<1>(strip + kTileFloats);
  tile_store<2>(strip + 2 * kTileFloats);
  tile_store<3>(strip + 3 * kTileFloats);
}

/// How the two left tiles of a step of k lie in memory.
struct Left {
  std::int64_t row_bytes;
  std::int64_t tile_bytes;
  std::int64_t step_bytes;
};
constexpr Left kPacked{64, kTileBytes, kStepBytes};

/// One step of k: sums += left * right; the left tiles are streamed, they shall not displace what L1 holds.
[[gnu::always_inline]] inline void multiply_step(const std::byte* a, const Left& left, const std::byte* b, bool two) {
  tile_load<6>(b);
  tile_load<7>(b + kTileBytes);
  tile_stream<4>(a, left.row_bytes);
  tile_product<0, 4, 6>();
  tile_product<1, 4, 7>();
  if (!two) [[unlikely]]
    return;
  tile_stream<5>(a + left.tile_bytes, left.row_bytes);
  tile_product<2, 5, 6>();
  tile_product<3, 5, 7>();
}

/// A tile's sum goes to its place in the strip `done`, and the next one begins: from zero, or from the strip `from`.
template <int kTile>
[[gnu::always_inline]] inline void turn_over(float* done, const float* from) {
  tile_store<kTile>(done + kTile * kTileFloats);
  if (from == nullptr) {
    tile_zero<kTile>();
  } else {
    tile_load<kTile>(from + kTile * kTileFloats);
  }
}

/// The first step of a sum. The sums before it are stored here, each in front of the product that needs its tile: so
/// they cost nothing, while four stores behind the last products stop the tile unit for 65 cycles.
[[gnu::always_inline]] inline void begin_sums(const std::byte* a, const Left& left, const std::byte* b, bool two,
                                              float* done, const float* from) {
  tile_load<6>(b);
  tile_load<7>(b + kTileBytes);
  tile_stream<4>(a, left.row_bytes);
  turn_over<0>(done, from);
  tile_product<0, 4, 6>();
  turn_over<1>(done, from);
  tile_product<1, 4, 7>();
  if (two) [[likely]]
    tile_stream<5>(a + left.tile_bytes, left.row_bytes);
  turn_over<2>(done, from);
  if (two) [[likely]]
    tile_product<2, 5, 6>();
  turn_over<3>(done, from);
  if (two) [[likely]]
    tile_product<3, 5, 7>();
}

/// What is left to do for the row block before: rows of its strip go to c, a few at a time.
template <class Rows>
struct FinishedBlock {
  const Rows* writer = nullptr;
  const float* sums = nullptr;
  std::int64_t row = 0;  ///< next one to write, in the row block
  std::int64_t rows = 0;
  std::int64_t first_row = 0;  ///< of the row block in c

  [[gnu::always_inline]] void advance(std::int64_t count) {
    for (const std::int64_t end = std::min(rows, row + count); row < end; ++row) {
      const float* at = sums + (row >> 4) * 2 * kTileFloats + (row & 15) * 16;
      writer->write(first_row + row, _mm512_load_ps(at), _mm512_load_ps(at + kTileFloats));
    }
  }
};

/// The same for scaled sums: kPromoted blocks of k are multiplied by their scales and added up.
template <class Rows>
struct WaitingSums {
  const Rows* writer = nullptr;  ///< where the sum is complete; otherwise it stays in the strip
  const float* sums = nullptr;   ///< [block][strip of one row block]
  float* strip = nullptr;
  const float* row_scales = nullptr;  ///< [block][32]
  __m512 low_scales[kPromoted];
  __m512 high_scales[kPromoted];
  std::int64_t blocks = 0;
  bool first = false;
  std::int64_t row = 0;
  std::int64_t rows = 0;
  std::int64_t first_row = 0;

  [[gnu::always_inline]] void advance(std::int64_t count) {
    for (const std::int64_t end = std::min(rows, row + count); row < end; ++row) {
      const std::int64_t at = (row >> 4) * 2 * kTileFloats + (row & 15) * 16;
      __m512 low = first ? _mm512_setzero_ps() : _mm512_load_ps(strip + at);
      __m512 high = first ? _mm512_setzero_ps() : _mm512_load_ps(strip + at + kTileFloats);
      add(0, at, low, high);
      if (blocks == 2) add(1, at, low, high);
      if (writer != nullptr) {
        writer->write(first_row + row, low, high);
      } else {
        _mm512_store_ps(strip + at, low);
        _mm512_store_ps(strip + at + kTileFloats, high);
      }
    }
  }

 private:
  [[gnu::always_inline]] void add(std::int64_t block, std::int64_t at, __m512& low, __m512& high) const {
    const float* from = sums + block * kStripFloats + at;
    const __m512 scale = _mm512_set1_ps(row_scales[block * kRows + row]);
    low = _mm512_fmadd_ps(_mm512_mul_ps(scale, low_scales[block]), _mm512_load_ps(from), low);
    high = _mm512_fmadd_ps(_mm512_mul_ps(scale, high_scales[block]), _mm512_load_ps(from + kTileFloats), high);
  }
};

/// Brings the next part of the panels into L2 while this one is multiplied, evenly spread.
struct Prefetch {
  const std::byte* next = nullptr;
  std::int64_t lines_per_step = 0;

  [[gnu::always_inline]] void advance() {
    for (std::int64_t i = 0; i < lines_per_step; ++i, next += 64) {
      _mm_prefetch(reinterpret_cast<const char*>(next), _MM_HINT_T1);
    }
  }
};

/// Asks for the rows of c that a row block will be written to when the next one is multiplied.
template <class Rows>
struct ExpectedRows {
  const Rows* writer = nullptr;
  std::int64_t row = 0;
  std::int64_t end = 0;
  std::int64_t rows_per_step = 0;

  [[gnu::always_inline]] void advance() {
    for (const std::int64_t stop = std::min(end, row + rows_per_step); row < stop; ++row) writer->expect(row);
  }
};

/// Rows of the block before that are finished in each step after the lag.
std::int64_t rows_per_step(std::int64_t steps) { return divide_up(kRows, std::max<std::int64_t>(1, steps - kLag)); }

template <class Rows>
void multiply_plain(const PanelProduct& w) {
  alignas(64) float outgoing[2][kStripFloats];
  int turn = 0;
  float* done = outgoing[1];  // where the sums in the tiles go; what they held before this product is not read
  const Rows writer(w.out);
  const Left left = w.a_row_bytes == 0 ? kPacked : Left{w.a_row_bytes, 16 * w.a_row_bytes, 2 * kStep};
  const auto* a_begin = static_cast<const std::byte*>(w.a);
  const auto* b_begin = static_cast<const std::byte*>(w.b);
  const std::int64_t row_blocks = divide_up(w.rows, kRows);
  FinishedBlock<Rows> finished;
  for (std::int64_t k = w.k_begin; k < w.k_end; k += kDepth) {
    const std::int64_t steps = (std::min(k + kDepth, w.k_end) - k) / kStep;
    const std::int64_t behind = rows_per_step(steps);
    const bool last = w.last && k + kDepth >= w.k_end;
    const std::byte* b_part = b_begin + k / kStep * kStepBytes;
    Prefetch prefetch{b_part + steps * kStepBytes, divide_up(kStepBytes / 64, row_blocks)};
    for (std::int64_t at = 0; at < row_blocks; ++at) {
      const std::byte* a = a_begin + at * w.a_block_bytes + k / kStep * left.step_bytes;
      const std::byte* b = b_part;
      const std::int64_t rows = std::min(kRows, w.rows - at * kRows);
      float* strip = w.strip + at * kStripFloats;
      ExpectedRows<Rows> expected{&writer, at * kRows, at * kRows + (last ? rows : 0), divide_up(kRows, steps)};
      begin_sums(a, left, b, rows > 16, done, k == 0 ? nullptr : strip);
      expected.advance();
      prefetch.advance();
      for (std::int64_t step = 1; step < steps; ++step) {
        multiply_step(a += left.step_bytes, left, b += kStepBytes, rows > 16);
        finished.advance(behind);
        expected.advance();
        prefetch.advance();
      }
      finished.advance(kRows);
      finished.rows = 0;
      done = strip;
      if (last) {
        done = outgoing[turn];
        finished = {&writer, done, 0, rows, at * kRows};
        turn ^= 1;
      }
    }
  }
  store_sums(done);
  finished.advance(kRows);
}

template <class Rows>
void multiply_promoted(const PanelProduct& w) {
  alignas(64) float sums[2][kPromoted * kStripFloats];
  const Rows writer(w.out);
  const auto* a_begin = static_cast<const std::byte*>(w.a);
  const auto* b_begin = static_cast<const std::byte*>(w.b);
  const std::int64_t row_blocks = divide_up(w.rows, kRows);
  const std::int64_t depth = kPromoted * w.k_per_scale;
  WaitingSums<Rows> waiting;
  int turn = 0;
  float* done = sums[1];  // where the sums in the tiles go; what they held before this product is not read
  for (std::int64_t k = w.k_begin; k < w.k_end; k += depth) {
    const std::int64_t steps = (std::min(k + depth, w.k_end) - k) / kStep;
    const std::int64_t steps_per_scale = w.k_per_scale / kStep;
    const bool last = w.last && k + depth >= w.k_end;
    const std::int64_t block = k / w.k_per_scale;
    const std::byte* b_part = b_begin + k / kStep * kStepBytes;
    Prefetch prefetch{b_part + steps * kStepBytes, divide_up(kStepBytes / 64, row_blocks)};
    for (std::int64_t at = 0; at < row_blocks; ++at, turn ^= 1) {
      const std::byte* a = a_begin + at * w.a_block_bytes + k / kStep * kStepBytes;
      const std::byte* b = b_part;
      const std::int64_t rows = std::min(kRows, w.rows - at * kRows);
      const std::int64_t behind = rows_per_step(steps);
      ExpectedRows<Rows> expected{&writer, at * kRows, at * kRows + (last ? rows : 0), divide_up(kRows, steps)};
      float* to = sums[turn];
      std::int64_t begins = 0;  // the step that begins the next sum
      for (std::int64_t step = 0; step < steps; ++step, a += kStepBytes, b += kStepBytes) {
        if (step < begins) {
          multiply_step(a, kPacked, b, rows > 16);
        } else {
          begin_sums(a, kPacked, b, rows > 16, done, nullptr);
          begins += steps_per_scale;
          done = to;
          to += kStripFloats;
        }
        if (step >= kLag) waiting.advance(behind);
        expected.advance();
        prefetch.advance();
      }
      waiting.advance(kRows);
      waiting.writer = last ? &writer : nullptr;
      waiting.sums = sums[turn];
      waiting.strip = w.strip + at * kStripFloats;
      waiting.row_scales = w.a_scales + (at * w.scale_blocks + block) * kRows;
      waiting.blocks = divide_up(steps, steps_per_scale);
      waiting.first = k == 0;
      waiting.row = 0;
      waiting.rows = rows;
      waiting.first_row = at * kRows;
      for (std::int64_t i = 0; i < waiting.blocks; ++i) {
        waiting.low_scales[i] = _mm512_load_ps(w.b_scales + (block + i) * kPanel);
        waiting.high_scales[i] = _mm512_load_ps(w.b_scales + (block + i) * kPanel + 16);
      }
    }
  }
  store_sums(done);
  waiting.advance(kRows);
}

template <class Rows>
void multiply_into(const PanelProduct& w) {
  if (w.k_per_scale == 0) {
    multiply_plain<Rows>(w);
  } else {
    multiply_promoted<Rows>(w);
  }
}

void multiply(const PanelProduct& w) {
  if (!plain_rows(w.out)) {
    multiply_into<AnyRows>(w);
  } else if (w.out.dtype == DType::bf16) {
    may_bypass(w.out) ? multiply_into<PlainRows<DType::bf16, true>>(w)
                      : multiply_into<PlainRows<DType::bf16, false>>(w);
  } else {
    may_bypass(w.out) ? multiply_into<PlainRows<DType::f32, true>>(w) : multiply_into<PlainRows<DType::f32, false>>(w);
  }
}

/// Copying rows costs a tenth of a product by eight panels, but copied rows are loaded a little faster: even at
/// sixteen.
bool reads_in_place(const Operand& a, std::int64_t panels) {
  constexpr std::int64_t kFewPanels = 12;
  return a.dtype == DType::bf16 && a.k_stride == 1 && a.k % kStep == 0 && !a.folded && panels <= kFewPanels;
}

void enter() { asm volatile("ldtilecfg %0" ::"m"(tile_config)); }
void leave() {
  asm volatile("tilerelease");
  _mm_sfence();  // streamed rows of c are visible before the workers meet
}

}  // namespace

const Machine machine{
    .layout = PackedMatrix::Layout::bf16_pairs,
    .row_block = kRows,
    .element_bytes = 2,
    .k_multiple = kStep,
    .left_bytes = 1 << 20,
    .left_beside_panels_bytes = 384 << 10,
    .enter = enter,
    .leave = leave,
    .reads_in_place = reads_in_place,
    .pack_rows = pack_rows,
    .quantize_rows = quantize_rows,
    .pack_panels = pack_panels,
    .multiply = multiply,
};

}  // namespace shoestring::gemm_detail::amx
#pragma GCC pop_options
