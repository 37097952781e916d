// The AMX machine: 2 x 2 sum tiles of 16 x 16, BF16 operands (8-bit ones are decoded exactly when they are packed).
//
// Idea: a panel's part of k stays in L1 while all row blocks of the worker pass by, streamed from L2. What follows a
// tile's sum (writing c, or promoting a block of k with its scales) is vector work on another port: it is spread over
// the tile products of the next row block, a row behind each. Order of sums: one TDPBF16PS adds 32 of k as two FMA
// chains, even and odd; steps follow in order of k.
#include <algorithm>
#include <array>
#include <utility>

#include "kernels/amx_tiles.h"
#include "kernels/gemm_amx_pack.h"
#include "kernels/gemm_problem.h"

// GCC 12 takes the undefined source operand inside these intrinsics for a mistake of ours (its bug 105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#include <immintrin.h>

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,amx-tile,amx-bf16")

#include "kernels/gemm_amx_rows.h"
#include "kernels/gemm_amx_tiles.h"

namespace shoestring::gemm_detail::amx {
namespace {

constexpr std::int64_t kDepth = 512;  // of k while sums stay in tiles: a panel's part is 32 KiB
constexpr std::int64_t kLag = 1;  // steps between storing sums and reading them: the last products must finish first

/// Lines brought into L2, some after each step of k.
struct Lines {
  const std::byte* next = nullptr;
  std::int64_t count = 0;

  [[gnu::always_inline]] void ask() {
    for (std::int64_t i = 0; i < count; ++i, next += 64) {
      _mm_prefetch(reinterpret_cast<const char*>(next), _MM_HINT_T1);
    }
  }
};

/// What is asked for while a row block is multiplied: the rows of c that it will be written to, and the next part of
/// the panels and of the rows, evenly spread.
template <class Rows>
struct Ahead {
  const Rows* writer;
  const std::byte* row;        ///< the next one, and ...
  std::int64_t row_bytes = 0;  ///< ... from one to the next; 0: none, the same line of this worker's own over and over
  Lines panel = {};
  Lines rows = {};

  void begin_rows(std::int64_t first) {
    row = writer->row(first);
    row_bytes = writer->row_bytes();
  }
  [[gnu::always_inline]] void ask_for_rows(std::int64_t count) {
    for (; count > 0; --count, row += row_bytes) writer->expect(row);
  }
  [[gnu::always_inline]] void ask_for_operands() {
    panel.ask();
    rows.ask();
  }
};

/// Rows of a block that are finished before one of the products of kSteps steps: none in the first step, then evenly.
template <int kSteps>
constexpr int rows_before(int product) {
  constexpr int kFirst = 4 * kLag;
  constexpr int kProducts = 4 * kSteps - kFirst;
  return product <= kFirst ? 0 : (static_cast<int>(kRows) * (product - kFirst) + kProducts - 1) / kProducts;
}
static_assert(rows_before<4>(16) == kRows && rows_before<8>(32) == kRows);

/// Between the products of kSteps steps: rows of the block before are finished, and as many are asked for.
template <int kSteps, class Before, class Rows>
struct Spread {
  Before before;
  Ahead<Rows> ahead;

  template <int kIndex, int kProduct>
  [[gnu::always_inline]] void after() {
    constexpr int kFirst = rows_before<kSteps>(4 * kIndex + kProduct);
    constexpr int kCount = rows_before<kSteps>(4 * kIndex + kProduct + 1) - kFirst;
    static_assert(kCount <= 3);
    if constexpr (kCount > 0) before.finish(kFirst);
    if constexpr (kCount > 1) before.finish(kFirst + 1);
    if constexpr (kCount > 2) before.finish(kFirst + 2);
    ahead.ask_for_rows(kRows / (4 * kSteps));
    if constexpr (kProduct == 3) ahead.ask_for_operands();
  }
};

/// Four or eight steps with all rows of the block before spread among them; `kFifth`: what the fifth adds to. Works on
/// copies: they stay in registers, where tile operations, which name all memory, would have everything else loaded
/// again.
template <int kSteps, Sums kFifth, class Before, class Rows>
void multiply_spread(Operands& operands, const TurnOver& first, const TurnOver& fifth, const Before& before,
                     Ahead<Rows>& ahead) {
  Operands at = operands;
  Spread<kSteps, Before, Rows> beside{before, ahead};
  multiply_step<0, Sums::begin>(at, first, beside);
  multiply_step<1, Sums::go_on>(at, first, beside);
  multiply_step<2, Sums::go_on>(at, first, beside);
  multiply_step<3, Sums::go_on>(at, first, beside);
  if constexpr (kSteps == 8) {
    multiply_step<4, kFifth>(at, fifth, beside);
    multiply_step<5, Sums::go_on>(at, fifth, beside);
    multiply_step<6, Sums::go_on>(at, fifth, beside);
    multiply_step<7, Sums::go_on>(at, fifth, beside);
  }
  operands = at;
  ahead = beside.ahead;
}

/// Any number of steps: the rest of the work follows each.
struct Nothing {
  template <int kIndex, int kProduct>
  [[gnu::always_inline]] void after() {}
};

/// Finishes rows and asks for as many; `ready` as soon as the sums of the block before are stored.
template <class Before, class Rows>
[[gnu::always_inline]] inline void work_behind(Before& before, Ahead<Rows>& ahead, bool ready, std::int64_t steps) {
  const std::int64_t count = divide_up(kRows, std::max<std::int64_t>(1, steps - kLag));
  for (const std::int64_t end = std::min(before.rows, before.row + count); ready && before.row < end; ++before.row) {
    before.finish(before.row);
  }
  if (ready) ahead.ask_for_rows(count);
  ahead.ask_for_operands();
}

template <class Before>
void finish_all(Before& before) {
  for (; before.row < before.rows; ++before.row) before.finish(before.row);
  before.rows = before.row = 0;
}

template <class Rows>
void multiply_plain(const PanelProduct& w) {
  alignas(64) float outgoing[kStripFloats];
  float* done = outgoing;  // where the sums in the tiles go; what they held before this product is not read
  const Rows writer(w.out);
  const Left left = w.a_row_bytes == 0 ? kPacked : Left{w.a_row_bytes, 16 * w.a_row_bytes, 2 * kStep};
  const std::int64_t row_blocks = divide_up(w.rows, kRows);
  const std::int64_t all_steps = row_blocks * divide_up(w.k_end - w.k_begin, kStep);
  Ahead<Rows> ahead{&writer, reinterpret_cast<const std::byte*>(outgoing)};
  ahead.rows = {w.ahead, divide_up(w.ahead_bytes / 64, all_steps)};
  FinishedBlock<Rows> finished{&writer};
  Nothing nothing;
  for (std::int64_t k = w.k_begin; k < w.k_end; k += kDepth) {
    const std::int64_t steps = (std::min(k + kDepth, w.k_end) - k) / kStep;
    const bool last = w.last && k + kDepth >= w.k_end;
    const auto* a = static_cast<const std::byte*>(w.a) + k / kStep * left.step_bytes;
    const auto* b = static_cast<const std::byte*>(w.b) + k / kStep * kStepBytes;
    if (!w.b_is_near) ahead.panel = {b + steps * kStepBytes, divide_up(kStepBytes / 64, row_blocks)};
    for (std::int64_t at = 0; at < row_blocks; ++at) {
      const std::int64_t rows = std::min(kRows, w.rows - at * kRows);
      Operands operands{a + at * w.a_block_bytes, left, b, rows > 16};
      float* strip = w.strip + at * kStripFloats;
      const TurnOver begin{done, k == 0 ? nullptr : strip};
      if (last) ahead.begin_rows(at * kRows);
      if (steps >= 4 && finished.rows == kRows) {
        const bool eight = steps >= 8;
        eight ? multiply_spread<8, Sums::go_on>(operands, begin, begin, finished, ahead)
              : multiply_spread<4, Sums::go_on>(operands, begin, begin, finished, ahead);
        finished.rows = 0;
        for (std::int64_t step = eight ? 8 : 4; step < steps; ++step) {
          multiply_step<0, Sums::go_on>(operands, begin, nothing);
          ahead.ask_for_operands();
        }
      } else {
        multiply_step<0, Sums::begin>(operands, begin, nothing);
        work_behind(finished, ahead, false, steps);
        for (std::int64_t step = 1; step < steps; ++step) {
          multiply_step<0, Sums::go_on>(operands, begin, nothing);
          work_behind(finished, ahead, step >= kLag, steps);
        }
        finish_all(finished);
      }
      done = strip;
      if (last) {
        done = outgoing;
        finished = {&writer, done, writer.row(at * kRows)};
        finished.rows = rows;
      }
    }
  }
  store_sums(done);
  finish_all(finished);
}

/// As many blocks of 128 as wait, beside them, where this is prepared for; otherwise nothing, and false. `done` is
/// where the sums in the tiles go, `to` where those that are made here will, the last of them still in the tiles.
template <class Rows>
bool multiply_blocks(const WaitingSums<Rows>& waiting, Operands& operands, float*& done, const BlockSums& to,
                     Ahead<Rows>& ahead) {
  const TurnOver first{done};
  const TurnOver fifth{to[0]};
  const auto beside = [&]<int kBlocks, bool kFirst, bool kLast>() {
    using Before = WaitingWhole<Rows, kBlocks, kFirst, kLast>;
    multiply_spread<4 * kBlocks, Sums::begin>(operands, first, fifth, Before(waiting), ahead);
  };
  if (waiting.blocks == 1) {  // of k = 128, or behind the pairs of an odd number
    if (!waiting.last) return false;
    waiting.first ? beside.template operator()<1, true, true>() : beside.template operator()<1, false, true>();
  } else if (waiting.first) {
    waiting.last ? beside.template operator()<2, true, true>() : beside.template operator()<2, true, false>();
  } else {
    waiting.last ? beside.template operator()<2, false, true>() : beside.template operator()<2, false, false>();
  }
  done = to[waiting.blocks - 1];
  return true;
}

template <class Rows>
void multiply_promoted(const PanelProduct& w) {
  // Sums of a first block come while those of the one before are still read, those of a second when all are.
  alignas(64) float sums[3][kStripFloats];
  BlockSums to{sums[0], sums[2]};
  BlockSums others{sums[1], sums[2]};
  float* done = sums[2];  // where the sums in the tiles go; what they held before this product is not read
  const Rows writer(w.out);
  const std::int64_t row_blocks = divide_up(w.rows, kRows);
  const std::int64_t depth = kPromoted * w.k_per_scale;
  const std::int64_t steps_per_scale = w.k_per_scale / kStep;
  Ahead<Rows> ahead{&writer, reinterpret_cast<const std::byte*>(sums)};
  WaitingSums<Rows> waiting{&writer};
  Nothing nothing;
  for (std::int64_t k = w.k_begin; k < w.k_end; k += depth) {
    const std::int64_t steps = (std::min(k + depth, w.k_end) - k) / kStep;
    const bool last = w.last && k + depth >= w.k_end;
    const std::int64_t block = k / w.k_per_scale;
    const auto* a = static_cast<const std::byte*>(w.a) + k / kStep * kStepBytes;
    const auto* b = static_cast<const std::byte*>(w.b) + k / kStep * kStepBytes;
    if (!w.b_is_near) ahead.panel = {b + steps * kStepBytes, divide_up(kStepBytes / 64, row_blocks)};
    for (std::int64_t at = 0; at < row_blocks; ++at, std::swap(to, others)) {
      const std::int64_t rows = std::min(kRows, w.rows - at * kRows);
      Operands operands{a + at * w.a_block_bytes, kPacked, b, rows > 16};
      if (last) ahead.begin_rows(at * kRows);
      const bool alike = steps_per_scale == 4 && steps == 4 * waiting.blocks && waiting.rows == kRows;
      if (!alike || !multiply_blocks(waiting, operands, done, to, ahead)) {
        for (std::int64_t step = 0; step < steps; ++step) {
          if (step % steps_per_scale == 0) {
            multiply_step<0, Sums::begin>(operands, {done}, nothing);
            done = to[static_cast<std::size_t>(step / steps_per_scale)];
          } else {
            multiply_step<0, Sums::go_on>(operands, {}, nothing);
          }
          work_behind(waiting, ahead, step >= kLag, steps);
        }
        finish_all(waiting);
      }
      waiting = {&writer, to, w.strip + at * kStripFloats, writer.row(at * kRows)};
      waiting.row_scales = w.a_scales + (at * w.scale_blocks + block) * kRows;
      waiting.column_scales = w.b_scales + block * kPanel;
      waiting.blocks = divide_up(steps, steps_per_scale);
      waiting.first = k == 0;
      waiting.last = last;
      waiting.rows = rows;
    }
  }
  store_sums(done);
  finish_all(waiting);
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

void enter() { asm volatile("ldtilecfg %0" ::"m"(shoestring::amx::g_tile_config)); }
void leave() {
  asm volatile("tilerelease");
  _mm_sfence();  // streamed rows of c are visible before the workers meet
}

}  // namespace

const Machine machine{
    .feature = &CpuFeatures::amx_bf16,
    .feature_name = "AMX",
    .layout = PackedMatrix::Layout::bf16_pairs,
    .row_block = kRows,
    .row_element_bytes = 2,
    .panel_element_bytes = 2,
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
