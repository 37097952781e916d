// Tokens into expert order straight into FP8 on a CUDA device: the quantiser's kernel with the gather for a source. The
// bits are those of gather's row into a tensor and then quantise's.
//
// Floors: bytes over the memory's speed, a token once for all its experts where the cache holds it until the last of
// them reads it, and a code for each output, where the two ops move the gathered rows twice more.
#include "kernels/cuda_refusals.h"
#include "kernels/gather_quantize.h"
#include "kernels/quantize_blocks.h"
#include "kernels/quantize_kernel.cuh"

namespace shoestring::permute::cuda {
namespace {

/// xp [rows, hidden]; rows of no slot are 0.
template <class In>
struct Gathered {
  const In* x;
  std::int64_t row_stride;
  const std::int32_t* slot_of_row;
  int choices;   ///< slots of a token
  bool aligned;  ///< four neighbours of x are one load
  __device__ void load4(const quantization::cuda::Parameters& p, std::int64_t row, std::int64_t column,
                        float xp[4]) const {
    const int slot = slot_of_row[row];
    if (slot < 0 || column >= p.columns) return;
    load_up_to4(x + slot / choices * row_stride + column, p.columns - column, aligned, xp);
  }
};

QuantizeArgs casts(const GatherQuantizeArgs& args) {
  const ScaledView& first = args.row_tiles.values.empty() ? args.column_tiles : args.row_tiles;
  return quantization::casts_of(
      args, quantization::unwritten({first.values.shape[0], args.x.shape[1]}, args.x.dtype, args.stream.device()));
}

template <class In>
void run_as(const GatherQuantizeArgs& args) {
  const std::int64_t tokens = args.x.shape[0];
  const Gathered<In> source{args.x.as<In>(), args.x.strides[0], args.plan.slot_of_row.as<std::int32_t>(),
                            tokens == 0 ? 1 : static_cast<int>(args.plan.row_of_slot.shape[0] / tokens),
                            rows_of_four(args.x.data, args.x.strides[0], sizeof(In))};
  const quantization::cuda::Parameters p = quantization::cuda::parameters_of(casts(args));
  const cudaStream_t stream = cuda_stream(args.stream);
  const ScaledView& first = args.row_tiles.values.empty() ? args.column_tiles : args.row_tiles;
  first.values.dtype == DType::e4m3 ? quantization::cuda::quantize_source<Gathered<In>, E4M3>(p, source, stream)
                                    : quantization::cuda::quantize_source<Gathered<In>, E5M2>(p, source, stream);
}

}  // namespace

std::string refuses(const GatherQuantizeArgs& args) {
  const std::string reason = needs_cuda(args.stream, {args.x, args.plan.slot_of_row});
  return reason.empty() ? quantization::cuda::refuses_quantize(casts(args)) : reason;
}

void gather_quantized(const GatherQuantizeArgs& args) {
  args.x.dtype == DType::f32 ? run_as<float>(args) : run_as<BFloat16>(args);
}

}  // namespace shoestring::permute::cuda
