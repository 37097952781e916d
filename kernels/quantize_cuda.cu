// Quantisation of a matrix on a CUDA device, and its maximum where one scale is for all of it.
#include "kernels/quantize_kernel.cuh"

namespace shoestring::quantization::cuda {
namespace {

/// x itself.
template <class In>
struct Plain {
  __device__ void load4(const Parameters& p, std::int64_t row, std::int64_t column, float x[4]) const {
    const In* from = static_cast<const In*>(p.x) + row * p.row_stride + column * p.column_stride;
    if (p.vector_load) {
      if (column < p.columns) shoestring::load4(from, x);
      return;
    }
    for (int i = 0; i < 4; ++i) {
      if (column + i < p.columns) x[i] = to_single(from[i * p.column_stride]);
    }
  }
};

/// Largest finite magnitude of x into `bits`, which is 0 before.
template <class In>
__global__ void __launch_bounds__(kThreads) amax_kernel(const __grid_constant__ Parameters p, unsigned int* bits) {
  std::uint32_t most = 0;
  for (std::int64_t row = blockIdx.x; row < p.rows; row += gridDim.x) {
    const In* x = static_cast<const In*>(p.x) + row * p.row_stride;
    for (std::int64_t c = static_cast<std::int64_t>(threadIdx.x) * 4; c < p.columns; c += kThreads * 4) {
      float v[4] = {0, 0, 0, 0};
      if (p.vector_load) {
        load4(x + c, v);
      } else {
        for (int i = 0; i < 4 && c + i < p.columns; ++i) v[i] = to_single(x[(c + i) * p.column_stride]);
      }
      for (int i = 0; i < 4; ++i) most = max(most, finite_bits(v[i]));
    }
  }
  most = __reduce_max_sync(0xFFFFFFFFu, most);
  if (threadIdx.x % 32 == 0) atomicMax(bits, most);
}

/// Turns the maximum that stands in a scale's place into the scale.
__global__ void scale_kernel(float* scale, ScaleKind kind, Format format) {
  *scale = quantize_tile::scale_of(__float_as_uint(*scale), kind, format).scale;
}

template <class In, class Payload>
void quantize_as(const Parameters& p, cudaStream_t stream) {
  if (p.row_scales == RowScales::uniform && !p.given) {
    auto* scale = static_cast<float*>(p.by_row.scales);
    cuda_check(cudaMemsetAsync(scale, 0, sizeof(float), stream), "cudaMemsetAsync");
    const auto blocks = static_cast<unsigned>(p.rows < 1024 ? p.rows : 1024);
    launch("quantize: amax", amax_kernel<In>, {blocks, kThreads, stream}, p,
           static_cast<unsigned int*>(p.by_row.scales));
    launch("quantize: scale", scale_kernel, {1, 1, stream}, scale, p.kind, Traits<Payload>::format);
  }
  quantize_source<Plain<In>, Payload>(p, {}, stream);
}

}  // namespace

void launch_quantize(const Parameters& p, DType input, DType payload, cudaStream_t stream) {
  const bool e4m3 = payload == DType::e4m3;
  if (input == DType::f32) {
    e4m3 ? quantize_as<float, E4M3>(p, stream) : quantize_as<float, E5M2>(p, stream);
  } else {
    e4m3 ? quantize_as<BFloat16, E4M3>(p, stream) : quantize_as<BFloat16, E5M2>(p, stream);
  }
}

}  // namespace shoestring::quantization::cuda
