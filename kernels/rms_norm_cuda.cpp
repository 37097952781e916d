// The host side of RMSNorm's CUDA rows: arguments to kernel parameters.
#include "kernels/rms_norm_cuda.h"

#include <string>

#include "kernels/base/cuda_check.h"
#include "kernels/rms_norm.h"
#include "kernels/rms_norm_rows.h"

namespace shoestring::rms_norm::cuda {
namespace {

DeviceRows rows_of(const ConstTensorView& view, int tail) {
  if (view.empty()) return {nullptr, 1, 0, 0};
  const bool heads = view.shape.rank() - tail == 2;
  return {const_cast<void*>(view.data), heads ? view.shape[1] : 1, view.strides[0], heads ? view.strides[1] : 0};
}

std::string refuses(const Stream& stream, const ConstTensorView& x) {
  if (stream.device().kind != DeviceKind::cuda) return "runs on a CUDA stream only";
  if (x.device != stream.device()) return "the tensors are on " + to_string(x.device);
  if (x.dtype != DType::f32 && x.dtype != DType::bf16) return std::string(name(x.dtype)) + " is not f32 or bf16";
  return {};
}

}  // namespace

std::string refuses(const RmsNormArgs& args) { return refuses(args.stream, args.x); }
std::string refuses(const RmsNormInputGradientArgs& args) { return refuses(args.stream, args.x); }
std::string refuses(const RmsNormWeightGradientArgs& args) { return refuses(args.stream, args.x); }

void forward(const RmsNormArgs& args) {
  launch(
      ForwardParameters{rows_of(args.y, 1), rows_of(args.rstd, 0), rows_of(args.x, 1), rows_of(args.residual, 1),
                        rows_of(args.sum, 1), args.gamma.as<float>(), row_count(args.x), row_width(args.x), args.eps},
      args.x.dtype, cuda_stream(args.stream));
}

void input_gradient(const RmsNormInputGradientArgs& args) {
  launch(InputGradientParameters{rows_of(args.dx, 1), rows_of(args.dy, 1), rows_of(args.x, 1), rows_of(args.rstd, 0),
                                 args.gamma.as<float>(), row_count(args.x), row_width(args.x), args.accumulate},
         args.x.dtype, cuda_stream(args.stream));
}

void weight_gradient(const RmsNormWeightGradientArgs& args) {
  launch(WeightGradientParameters{args.dgamma.as<float>(), rows_of(args.dy, 1), rows_of(args.x, 1),
                                  rows_of(args.rstd, 0), row_count(args.x), row_width(args.x)},
         args.x.dtype, cuda_stream(args.stream));
}

}  // namespace shoestring::rms_norm::cuda
