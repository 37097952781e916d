// RMSNorm straight into FP8 on a CUDA device, in two passes: RMSNorm's own kernel for the statistic of each row (and
// the sum with a residual), then the quantiser's with the norm for a source, so that y never leaves the registers. The
// bits are those of RMSNorm's row into a tensor and then quantise's.
//
// Floors: bytes over the memory's speed, x twice and a code for each output: for bf16 and both orientations 6 bytes an
// element, where the two ops move 8 and RMSNorm's second look at x. Reading x once would take a cluster that holds 128
// whole rows, for the tall tiles.
#include "kernels/cuda_refusals.h"
#include "kernels/quantize_blocks.h"
#include "kernels/quantize_kernel.cuh"
#include "kernels/rms_norm_quantize.h"

namespace shoestring::rms_norm::cuda {
namespace {

/// y [tokens, hidden], rounded to In as a tensor would be.
template <class In>
struct Normalised {
  const In* x;  ///< or the sum with a residual
  std::int64_t row_stride;
  const float* gamma;
  const float* rstd;
  std::int64_t rstd_stride;
  bool aligned;        ///< four neighbours of x are one load,
  bool gamma_aligned;  ///< of gamma
  __device__ void load4(const quantization::cuda::Parameters& p, std::int64_t row, std::int64_t column,
                        float y[4]) const {
    if (column >= p.columns) return;
    const std::int64_t left = p.columns - column;
    const float scale = rstd[row * rstd_stride];
    float from[4], gain[4];
    load_up_to4(x + row * row_stride + column, left, aligned, from);
    load_up_to4(gamma + column, left, gamma_aligned, gain);
    for (int i = 0; i < 4; ++i) {
      if (i < left) y[i] = In(from[i] * scale * gain[i]);
    }
  }
};

QuantizeArgs casts(const RmsNormQuantizeArgs& args) {
  return quantization::casts_of(args, quantization::unwritten(args.x.shape, args.x.dtype, args.stream.device()));
}

RmsNormArgs statistics(const RmsNormQuantizeArgs& args, TensorView rstd) {
  return {.rstd = rstd,
          .x = args.x,
          .gamma = args.gamma,
          .residual = args.residual,
          .sum = args.sum,
          .eps = args.eps,
          .stream = args.stream};
}

template <class In>
void run_as(const RmsNormQuantizeArgs& args, ConstTensorView rstd) {
  const ConstTensorView x = args.sum.empty() ? args.x : ConstTensorView(args.sum);
  const Normalised<In> source{x.as<In>(),
                              x.strides[0],
                              args.gamma.as<float>(),
                              rstd.as<float>(),
                              rstd.strides[0],
                              rows_of_four(x.data, x.strides[0], sizeof(In)),
                              rows_of_four(args.gamma.data, 0, sizeof(float))};
  const quantization::cuda::Parameters p = quantization::cuda::parameters_of(casts(args));
  const cudaStream_t stream = cuda_stream(args.stream);
  const ScaledView& first = args.row_tiles.values.empty() ? args.column_tiles : args.row_tiles;
  first.values.dtype == DType::e4m3 ? quantization::cuda::quantize_source<Normalised<In>, E4M3>(p, source, stream)
                                    : quantization::cuda::quantize_source<Normalised<In>, E5M2>(p, source, stream);
}

}  // namespace

std::string refuses(const RmsNormQuantizeArgs& args) {
  const std::string reason = refuses(statistics(args, args.rstd));
  return reason.empty() ? quantization::cuda::refuses_quantize(casts(args)) : reason;
}

void forward_quantized(const RmsNormQuantizeArgs& args) {
  const Arena::Scope scope(args.scratch);
  const TensorView rstd = args.rstd.empty() ? args.scratch.take(DType::f32, {args.x.shape[0]}) : args.rstd;
  forward(statistics(args, rstd));
  args.x.dtype == DType::f32 ? run_as<float>(args, rstd) : run_as<BFloat16>(args, rstd);
}

}  // namespace shoestring::rms_norm::cuda
