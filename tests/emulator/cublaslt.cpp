// Stands for the library behind gemm's "cublaslt" row: what the row refuses without asking it, it refuses here, and a
// product is what the CPU's rows make of the same memory, when its stream comes to it.
#include "kernels/gemm_cublaslt.h"

#include "cuda_runtime_api.h"
#include "kernels/base/workers.h"
#include "kernels/gemm_cublaslt_plan.h"

namespace shoestring::gemm_detail::cublaslt {
namespace {

template <class View>
View on_host(View view) {
  view.device = {};
  return view;
}

ConstScaledView on_host(const ConstScaledView& view) {
  return {on_host(view.values), on_host(view.scales), view.granularity};
}

}  // namespace

std::string refuses(const GemmArgs& args) {
  const Device device = args.stream.device();
  if (device.kind != DeviceKind::cuda) return "runs on a CUDA stream only";
  return refuses_arguments(args, device);
}

void run(const GemmArgs& args) {
  const auto work = [c = on_host(args.c), a = on_host(args.a), b = on_host(args.b), bias = on_host(args.bias),
                     accumulate = args.accumulate, powers = args.power_of_two_scales] {
    static Workers workers(1);
    static Stream stream(workers);
    Arena scratch(gemm_scratch_bytes(c.shape[0], c.shape[1], a.values.shape[1], 1, false), {});
    gemm({.c = c,
          .a = a,
          .b = b,
          .accumulate = accumulate,
          .power_of_two_scales = powers,
          .bias = bias,
          .scratch = scratch,
          .stream = stream});
  };
  emulator::enqueue(static_cast<cudaStream_t>(args.stream.native()), work);
}

}  // namespace shoestring::gemm_detail::cublaslt
