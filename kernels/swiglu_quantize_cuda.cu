// SwiGLU straight into FP8 on a CUDA device: the quantiser's kernel with the activation for a source, so that y never
// leaves the registers. The bits are those of swiglu's row into a tensor and then quantise's.
//
// Floors: bytes over the memory's speed, gate and up once and a code for each output, against which the two ops move
// twice the activation's bytes more; and the quantiser's instructions with an exp and a division an element.
#include "kernels/cuda_refusals.h"
#include "kernels/quantize_blocks.h"
#include "kernels/quantize_kernel.cuh"
#include "kernels/swiglu_device.cuh"

namespace shoestring::swiglu::cuda {
namespace {

/// [rows, f] in Format, rounded as a tensor would be.
template <class Format, class In>
struct Activated {
  GateUp in;
  __device__ void load4(const quantization::cuda::Parameters& p, std::int64_t row, std::int64_t column,
                        float x[4]) const {
    if (column >= p.columns) return;
    float y[4];
    activate4<In>(in, row, column, weight_of(in, row), y);
    for (int i = 0; i < 4; ++i) {
      if (column + i < p.columns) x[i] = Format(y[i]);
    }
  }
};

template <class Format, class In>
void run_as(const SwigluQuantizeArgs& args, const quantization::cuda::Parameters& p, DType payload) {
  const Activated<Format, In> source{gate_up_of(args.gate_up, args.row_weight, args.clamp)};
  const cudaStream_t stream = cuda_stream(args.stream);
  payload == DType::e4m3 ? quantization::cuda::quantize_source<Activated<Format, In>, E4M3>(p, source, stream)
                         : quantization::cuda::quantize_source<Activated<Format, In>, E5M2>(p, source, stream);
}

QuantizeArgs casts(const SwigluQuantizeArgs& args) {
  const Shape& gate_up = args.gate_up.values.shape;
  return quantization::casts_of(
      args, quantization::unwritten({gate_up[0], gate_up[1] / 2}, args.format, args.stream.device()));
}

}  // namespace

std::string refuses(const SwigluQuantizeArgs& args) {
  const std::string reason =
      needs_cuda(args.stream, {args.gate_up.values, args.gate_up.scales, args.row_weight}, false);
  return reason.empty() ? quantization::cuda::refuses_quantize(casts(args)) : reason;
}

void forward_quantized(const SwigluQuantizeArgs& args) {
  const quantization::cuda::Parameters p = quantization::cuda::parameters_of(casts(args));
  const ScaledView& first = args.row_tiles.values.empty() ? args.column_tiles : args.row_tiles;
  const DType payload = first.values.dtype;
  const bool codes = args.gate_up.scaled();
  if (args.format == DType::f32) {
    codes ? run_as<float, E4M3>(args, p, payload) : run_as<float, float>(args, p, payload);
  } else {
    codes ? run_as<BFloat16, E4M3>(args, p, payload) : run_as<BFloat16, BFloat16>(args, p, payload);
  }
}

}  // namespace shoestring::swiglu::cuda
