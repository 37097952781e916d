// What quantise and dequantise hand to their CUDA kernels. Included by their .cu and .cpp files only.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels/quantize_variants.h"

namespace shoestring::quantization::cuda {

inline constexpr int kRowsPerWarp = 8;
inline constexpr int kColumns = 128;      // of a block of threads
inline constexpr int kThreads = 512;      // at most: 128 rows
inline constexpr int kMaxSegments = 384;  // offsets travel as a kernel argument, of which there are 4 KiB

/// The matrix's rows cut into tiles, on the device.
struct Cut {
  int tile_rows;
  int segments;
  int offsets[kMaxSegments + 1];     ///< rows
  int first_tile[kMaxSegments + 1];  ///< of each segment, and their number
};
static_assert(kMaxSegments < 512);  // the search on the device

/// One output; values == nullptr when it is absent.
struct Output {
  std::uint8_t* values;
  std::int64_t row_stride;
  std::int64_t column_stride;
  void* scales;
  std::int64_t scale_row_stride;
  std::int64_t scale_column_stride;
};

enum class RowScales { absent, tile128, tile32, block128, uniform };

struct Parameters {
  const void* x;
  std::int64_t row_stride;
  std::int64_t column_stride;
  std::int64_t rows;
  std::int64_t columns;
  int tile_columns;
  RowScales row_scales;
  Output by_row;
  Output by_column;  ///< with RowScales::block128: a second layout of the same codes
  ScaleKind kind;
  bool given;
  bool e8m0;
  bool vector_load;   ///< four neighbours of x are one aligned load
  bool vector_store;  ///< and four codes one aligned store
  QuantizeCounts* counts;
  Cut cut;
};
static_assert(sizeof(Parameters) <= 3584);  // and a source beside it

struct DequantizeParameters {
  void* y;
  std::int64_t row_stride;
  std::int64_t column_stride;
  std::int64_t columns;
  std::int64_t width;  ///< columns that share a scale
  Output x;
  bool e8m0;
  bool vectors;  ///< four neighbours share a scale, are one load and one store
  Cut cut;
};

/// What the kernels need to know of `args`, whose x may be without data: another source then stands for it.
Parameters parameters_of(const QuantizeArgs& args);

void launch_quantize(const Parameters& p, DType input, DType payload, cudaStream_t stream);
void launch_dequantize(const DequantizeParameters& p, DType output, DType payload, cudaStream_t stream);

}  // namespace shoestring::quantization::cuda
