// Dequantisation on a CUDA device: a block of threads takes rows that share their scale row.
#pragma nv_diag_suppress 554  // a conversion that a requires clause rules out: nvcc takes it for a useless one
#include "kernels/base/launch.cuh"
#include "kernels/quantize_cuda.h"

namespace shoestring::quantization::cuda {
namespace {

using quantize_tile::RowTile;

__device__ float load_scale(const Output& out, bool e8m0, std::int64_t row, std::int64_t column) {
  const std::int64_t at = row * out.scale_row_stride + column * out.scale_column_stride;
  return e8m0 ? float{static_cast<const E8M0*>(out.scales)[at]} : static_cast<const float*>(out.scales)[at];
}

template <class Out, class Payload>
__global__ void __launch_bounds__(kThreads) dequantize_kernel(const __grid_constant__ DequantizeParameters p) {
  const RowTile rows = quantize_tile::row_tile(blockIdx.x, p.cut.tile_rows, p.cut.offsets, p.cut.segments);
  Out* y = static_cast<Out*>(p.y);
  for (std::int64_t r = rows.begin + blockIdx.y; r < rows.begin + rows.count; r += gridDim.y) {
    for (std::int64_t c = threadIdx.x; c < p.columns; c += kThreads) {
      Payload code;
      code.bits = p.x.values[r * p.x.row_stride + c * p.x.column_stride];
      const float scale = load_scale(p.x, p.e8m0, blockIdx.x, c / p.width);
      y[r * p.row_stride + c * p.column_stride] = Out(quantize_tile::decode(code, scale));
    }
  }
}

template <class Out, class Payload>
void dequantize_as(const DequantizeParameters& p, std::int64_t tiles, cudaStream_t stream) {
  const dim3 grid(static_cast<unsigned>(tiles), static_cast<unsigned>(p.cut.tile_rows < 1024 ? p.cut.tile_rows : 1024));
  launch("dequantize", dequantize_kernel<Out, Payload>, {grid, kThreads, stream}, p);
}

}  // namespace

void launch_dequantize(const DequantizeParameters& p, std::int64_t tiles, DType output, DType payload,
                       cudaStream_t stream) {
  const bool e4m3 = payload == DType::e4m3;
  if (output == DType::f32) {
    e4m3 ? dequantize_as<float, E4M3>(p, tiles, stream) : dequantize_as<float, E5M2>(p, tiles, stream);
  } else {
    e4m3 ? dequantize_as<BFloat16, E4M3>(p, tiles, stream) : dequantize_as<BFloat16, E5M2>(p, tiles, stream);
  }
}

}  // namespace shoestring::quantization::cuda
