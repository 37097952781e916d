// Dequantisation on a CUDA device: a block of threads takes rows that share their scale row, a thread four neighbouring
// columns.
//
// Floors: bytes over the memory's speed; and some ten instructions an element, below that.
#include "kernels/quantize_device.cuh"

namespace shoestring::quantization::cuda {
namespace {

template <class Out, class Payload>
__global__ void __launch_bounds__(kThreads) dequantize_kernel(const __grid_constant__ DequantizeParameters p) {
  const RowTile rows = row_tile(p.cut, static_cast<int>(blockIdx.x));
  const auto columns = static_cast<std::uint32_t>(p.columns);
  const auto width = static_cast<std::uint32_t>(p.width);
  for (std::int64_t r = rows.begin + blockIdx.y; r < rows.begin + rows.count; r += gridDim.y) {
    const std::uint8_t* from = p.x.values + r * p.x.row_stride;
    Out* to = static_cast<Out*>(p.y) + r * p.row_stride;
    for (std::uint32_t c = threadIdx.x * 4; c < columns; c += kThreads * 4) {
      std::uint32_t word = 0;
      if (p.vectors) word = *reinterpret_cast<const std::uint32_t*>(from + c);
      float y[4];
      for (int i = 0; i < 4 && c + i < columns; ++i) {
        Payload code;
        code.bits = p.vectors ? static_cast<std::uint8_t>(word >> 8 * i) : from[(c + i) * p.x.column_stride];
        const float scale = load_scale(p.x, p.e8m0, blockIdx.x, (p.vectors ? c : c + i) / width);
        y[i] = quantize_tile::decode(code, scale);
        if (!p.vectors) to[(c + i) * p.column_stride] = Out(y[i]);
      }
      if (p.vectors) shoestring::store4(to + c, y);
    }
  }
}

template <class Out, class Payload>
void dequantize_as(const DequantizeParameters& p, cudaStream_t stream) {
  const dim3 grid(static_cast<unsigned>(p.cut.first_tile[p.cut.segments]),
                  static_cast<unsigned>(p.cut.tile_rows < 1024 ? p.cut.tile_rows : 1024));
  launch("dequantize", dequantize_kernel<Out, Payload>, {grid, kThreads, stream}, p);
}

}  // namespace

void launch_dequantize(const DequantizeParameters& p, DType output, DType payload, cudaStream_t stream) {
  const bool e4m3 = payload == DType::e4m3;
  if (output == DType::f32) {
    e4m3 ? dequantize_as<float, E4M3>(p, stream) : dequantize_as<float, E5M2>(p, stream);
  } else {
    e4m3 ? dequantize_as<BFloat16, E4M3>(p, stream) : dequantize_as<BFloat16, E5M2>(p, stream);
  }
}

}  // namespace shoestring::quantization::cuda
