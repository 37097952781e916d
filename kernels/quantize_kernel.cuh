// Quantisation on a CUDA device: one block of threads holds up to 128 rows by 128 columns of its source in registers,
// so that both orientations come from one read of memory. A warp owns 8 rows, a lane four neighbouring columns.
//
//   row maxima     by warp reductions, over 32 lanes (1x128) or 8 (1x32)
//   column maxima  over a lane's 8 rows, then over warps through shared memory
//   scales         once each, by the lane or thread that also stores them: quantize_tile.h, as on the CPU
//
// The source is a matrix (quantize_cuda.cu) or what an op computes (swiglu_quantize_cuda.cu):
//   void load4(const Parameters& p, std::int64_t row, std::int64_t column, float x[4]) const;   // 0 past the columns
//
// Floors: bytes over the memory's speed, the source once and a code for each output; and some 60 instructions for each
// four elements and output, which is below the bytes on sm_90 while two blocks share a multiprocessor.
#pragma once

#include "kernels/quantize_device.cuh"

namespace shoestring::quantization::cuda {
namespace {

/// Codes of the rows of a warp under scales of 1x128 (kGroup = 32 lanes) or 1x32 (8 lanes).
template <class Payload, int kGroup>
__device__ void quantize_rows(const Parameters& p, std::int64_t first_row, int count, std::int64_t column,
                              const float (&x)[kRows][4], Lost& lost) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  constexpr int kMine = kGroup < kRows ? kRows / kGroup : 1;  // rows whose scale this lane looks after
  const int first_lane = lane / kGroup * kGroup;
  const std::uint32_t members = kGroup == 32 ? 0xFFFFFFFFu : ((1u << kGroup % 32) - 1u) << first_lane;
  std::uint32_t amax[kMine] = {};
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    std::uint32_t most = 0;
    for (int i = 0; i < 4; ++i) most = max(most, finite_bits(x[r][i]));
    most = __reduce_max_sync(members, most);
    if (lane - first_lane == r % kGroup) amax[r / kGroup] = most;
  }
  Scale scale[kMine];
  const std::int64_t tile = column / (kGroup * 4);
#pragma unroll
  for (int s = 0; s < kMine; ++s) {
    const int row = lane - first_lane + s * kGroup;
    const bool mine = row < count && tile * kGroup * 4 < p.columns;
    scale[s] = mine ? resolve<Payload>(p, p.by_row, first_row + row, tile, amax[s]) : Scale{1.0f, 1.0f};
  }
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    const float inverse = __shfl_sync(0xFFFFFFFFu, scale[r / kGroup].inverse, first_lane + r % kGroup);
    const float by[4] = {inverse, inverse, inverse, inverse};
    if (r >= count || column >= p.columns) continue;
    const std::uint32_t codes = encode4<Payload>(x[r], by);
    store4(p, p.by_row, first_row + r, column, codes);
    if (p.counts != nullptr) count_lost<Payload>(x[r], by, lost);
  }
}

/// Magnitude maxima of each lane's four columns over all rows of the block; `staging` is [warps][128].
__device__ void column_maxima(const float (&x)[kRows][4], std::uint32_t* staging) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  for (int i = 0; i < 4; ++i) {
    std::uint32_t most = 0;
#pragma unroll
    for (int r = 0; r < kRows; ++r) most = max(most, finite_bits(x[r][i]));
    staging[warp * kColumns + lane * 4 + i] = most;
  }
  __syncthreads();
}

/// The inverses of the block's 128 columns, in shared memory; scales of columns, or one for the block.
template <class Payload>
__device__ void resolve_columns(const Parameters& p, std::int64_t tile_row, std::int64_t first_column,
                                std::uint32_t* staging, float* inverse) {
  const int warps = static_cast<int>(blockDim.x) / 32;
  const bool block = p.row_scales == RowScales::block128;
  for (int c = static_cast<int>(threadIdx.x); c < kColumns; c += static_cast<int>(blockDim.x)) {
    std::uint32_t most = 0;
    for (int w = 0; w < warps; ++w) most = max(most, staging[w * kColumns + c]);
    if (block) {
      staging[c] = most;  // only this thread reads and writes column c
    } else if (first_column + c < p.columns) {
      inverse[c] = resolve<Payload>(p, p.by_column, tile_row, first_column + c, most).inverse;
    } else {
      inverse[c] = 1.0f;
    }
  }
  __syncthreads();
  if (!block) return;
  if (threadIdx.x < 32) {
    std::uint32_t most = 0;
    for (int c = static_cast<int>(threadIdx.x); c < kColumns; c += 32) most = max(most, staging[c]);
    most = __reduce_max_sync(0xFFFFFFFFu, most);
    Scale scale{1.0f, 1.0f};
    if (threadIdx.x == 0) {
      scale = resolve<Payload>(p, p.by_row, tile_row, first_column / kColumns, most);
      if (p.by_column.values != nullptr && !p.given) {
        store_scale(p.by_column, p.e8m0, tile_row, first_column / kColumns, scale.scale);
      }
    }
    const float all = __shfl_sync(0xFFFFFFFFu, scale.inverse, 0);
    for (int c = static_cast<int>(threadIdx.x); c < kColumns; c += 32) inverse[c] = all;
  }
  __syncthreads();
}

/// Where column c of a block stands in shared memory: lanes that write side by side then use different banks.
__device__ int slot_of(int c) { return c % 4 * 32 + c / 4; }

/// Four rows of four codes, one column a word.
__device__ void turn4(const std::uint32_t row[4], std::uint32_t column[4]) {
  const std::uint32_t a = __byte_perm(row[0], row[1], 0x5140);
  const std::uint32_t b = __byte_perm(row[2], row[3], 0x5140);
  const std::uint32_t c = __byte_perm(row[0], row[1], 0x7362);
  const std::uint32_t d = __byte_perm(row[2], row[3], 0x7362);
  column[0] = __byte_perm(a, b, 0x5410);
  column[1] = __byte_perm(a, b, 0x7632);
  column[2] = __byte_perm(c, d, 0x5410);
  column[3] = __byte_perm(c, d, 0x7632);
}

/// Writes the block's codes, turned, to an output whose columns are not neighbours; a warp writes one column at a time.
__device__ void store_turned(const Parameters& p, const Output& out, const RowTile& rows, std::int64_t first_column,
                             const std::uint8_t (*turned)[kColumns + 4]) {
  for (int item = static_cast<int>(threadIdx.x); item < kColumns * 32; item += static_cast<int>(blockDim.x)) {
    const int c = item / 32;
    const int r = item % 32 * 4;
    if (first_column + c >= p.columns || r >= rows.count) continue;
    const std::uint8_t* from = &turned[slot_of(c)][r];
    std::uint8_t* to = out.values + (rows.begin + r) * out.row_stride + (first_column + c) * out.column_stride;
    if (out.row_stride == 1 && r + 4 <= rows.count && reinterpret_cast<std::uintptr_t>(to) % 4 == 0) {
      *reinterpret_cast<std::uint32_t*>(to) = *reinterpret_cast<const std::uint32_t*>(from);
      continue;
    }
    for (int i = 0; i < 4 && r + i < rows.count; ++i) to[i * out.row_stride] = from[i];
  }
}

/// Codes under the inverses of columns (all equal for a block or a matrix), to an output of either layout.
template <class Payload>
__device__ void write_columns(const Parameters& p, const Output& out, const RowTile& rows, int warp_row, int count,
                              std::int64_t first_column, const float (&x)[kRows][4], const float* inverse,
                              std::uint8_t (*turned)[kColumns + 4], bool counted, Lost& lost) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const std::int64_t column = first_column + lane * 4;
  const float by[4] = {inverse[lane * 4], inverse[lane * 4 + 1], inverse[lane * 4 + 2], inverse[lane * 4 + 3]};
  const bool transposed = out.column_stride != 1;
#pragma unroll
  for (int r = 0; r < kRows; r += 4) {
    std::uint32_t codes[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      codes[i] = encode4<Payload>(x[r + i], by);
      if (counted && r + i < count) count_lost<Payload>(x[r + i], by, lost);
      if (!transposed && r + i < count && column < p.columns) {
        store4(p, out, rows.begin + warp_row + r + i, column, codes[i]);
      }
    }
    if (!transposed) continue;
    std::uint32_t words[4];
    turn4(codes, words);
    for (int i = 0; i < 4; ++i) {
      *reinterpret_cast<std::uint32_t*>(&turned[slot_of(lane * 4 + i)][warp_row + r]) = words[i];
    }
  }
  if (!transposed) return;
  __syncthreads();
  store_turned(p, out, rows, first_column, turned);
}

/// Adds one count of the whole block, if it is not zero.
__device__ void add_count(std::int64_t* total, std::uint32_t part) {
  const std::uint32_t sum = __reduce_add_sync(0xFFFFFFFFu, part);
  if (threadIdx.x % 32 == 0 && sum != 0) atomicAdd(reinterpret_cast<unsigned long long*>(total), sum);
}

__device__ void add_counts(const Parameters& p, const float (&x)[kRows][4], const Lost& lost) {
  std::uint32_t most = 0;
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    for (int i = 0; i < 4; ++i) most = max(most, finite_bits(x[r][i]));
  }
  most = __reduce_max_sync(0xFFFFFFFFu, most);
  auto* amax = reinterpret_cast<unsigned int*>(&p.counts->amax);  // non-negative singles order as integers
  if (threadIdx.x % 32 == 0 && most > relaxed_load(amax)) atomicMax(amax, most);
  add_count(&p.counts->saturated, lost.saturated);
  add_count(&p.counts->underflowed, lost.underflowed);
  add_count(&p.counts->non_finite, lost.non_finite);
  if (blockIdx.x == 0 && threadIdx.x == 0) {
    const bool two =
        p.row_scales != RowScales::absent && p.row_scales != RowScales::block128 && p.by_column.values != nullptr;
    atomicAdd(reinterpret_cast<unsigned long long*>(&p.counts->elements),
              static_cast<unsigned long long>(p.rows * p.columns * (two ? 2 : 1)));
  }
}

template <class Source, class Payload>
__global__ void __launch_bounds__(kThreads)
    quantize_kernel(const __grid_constant__ Parameters p, const __grid_constant__ Source source) {
  __shared__ std::uint32_t staging[kThreads / 32 * kColumns];
  __shared__ float inverse[kColumns];
  __shared__ __align__(16) std::uint8_t turned[kColumns][kColumns + 4];
  const int tile_row = static_cast<int>(blockIdx.x) / p.tile_columns;
  const std::int64_t first_column = static_cast<std::int64_t>(blockIdx.x % p.tile_columns) * kColumns;
  const std::int64_t column = first_column + threadIdx.x % 32 * 4;
  const RowTile rows = row_tile(p.cut, tile_row);
  const int warp_row = static_cast<int>(threadIdx.x) / 32 * kRows;
  const int count =
      static_cast<int>(min(static_cast<std::int64_t>(kRows), max(rows.count - warp_row, std::int64_t{0})));

  float x[kRows][4];
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    for (int i = 0; i < 4; ++i) x[r][i] = 0.0f;
    if (r < count) source.load4(p, rows.begin + warp_row + r, column, x[r]);
  }
  Lost lost;
  if (p.row_scales == RowScales::tile128) {
    quantize_rows<Payload, 32>(p, rows.begin + warp_row, count, column, x, lost);
  }
  if (p.row_scales == RowScales::tile32) {
    quantize_rows<Payload, 8>(p, rows.begin + warp_row, count, column, x, lost);
  }
  const bool uniform = p.row_scales == RowScales::uniform;
  const bool block = p.row_scales == RowScales::block128;
  const bool tall = p.by_column.values != nullptr;
#pragma unroll 1
  for (int part = 0; part < 2; ++part) {  // the row output where a scale covers many rows, then the column output
    if (part == 0 ? !(uniform || block) : !tall) continue;
    if (part == 0 && uniform) {
      const float one = quantize_tile::given(load_scale(p.by_row, p.e8m0, 0, 0)).inverse;
      for (int c = static_cast<int>(threadIdx.x); c < kColumns; c += static_cast<int>(blockDim.x)) inverse[c] = one;
      __syncthreads();
    } else if (part == 0 || !block) {
      column_maxima(x, staging);
      resolve_columns<Payload>(p, tile_row, first_column, staging, inverse);
    }
    const bool counted = p.counts != nullptr && (part == 0 || !block);
    write_columns<Payload>(p, part == 0 ? p.by_row : p.by_column, rows, warp_row, count, first_column, x, inverse,
                           turned, counted, lost);
    __syncthreads();
  }
  if (p.counts != nullptr) add_counts(p, x, lost);
}

template <class Source, class Payload>
void quantize_source(const Parameters& p, const Source& source, cudaStream_t stream) {
  const auto blocks = static_cast<unsigned>(p.cut.first_tile[p.cut.segments] * p.tile_columns);
  launch("quantize", quantize_kernel<Source, Payload>,
         {blocks, static_cast<unsigned>(p.cut.tile_rows / kRows * 32), stream}, p, source);
}

}  // namespace
}  // namespace shoestring::quantization::cuda
