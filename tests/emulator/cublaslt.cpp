// Stands for the library behind the "cublaslt" rows of gemm and of the grouped products: what a row refuses without
// asking it, it refuses here, and a product is what the CPU's rows make of the same memory, when its stream comes to
// it. Of a grouped one it sees what the library sees: arrays on the device.
#include "kernels/gemm_cublaslt.h"

#include "cuda_runtime_api.h"
#include "kernels/base/workers.h"
#include "kernels/gemm_cublaslt_plan.h"
#include "kernels/grouped_gemm_arrays.h"
#include "kernels/grouped_gemm_cublaslt.h"

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

void multiply(TensorView c, const ConstScaledView& a, const ConstScaledView& b, ConstTensorView bias, bool accumulate,
              bool power_of_two_scales) {
  static Workers workers(1);
  static Stream stream(workers);
  Arena scratch(gemm_scratch_bytes(c.shape[0], c.shape[1], a.values.shape[1], 1, false), {});
  gemm({.c = c,
        .a = a,
        .b = b,
        .accumulate = accumulate,
        .power_of_two_scales = power_of_two_scales,
        .bias = bias,
        .scratch = scratch,
        .stream = stream});
}

/// An operand [rows, k] of a group as the arrays have it, its scales as the library reads them.
ConstScaledView operand_of(const GroupedPlan& plan, Side side, bool k_contiguous, int group) {
  const GroupedArrays& arrays = plan.setup.arrays;
  const std::int64_t contiguous = arrays.rows[side][group], other = arrays.columns[side][group];
  ConstTensorView values = view_of(arrays.values[side][group], plan.types[side],
                                   k_contiguous ? Shape{other, contiguous} : Shape{contiguous, other});
  values.strides = k_contiguous ? Strides{arrays.leading[side][group], 1} : Strides{1, arrays.leading[side][group]};
  if (arrays.scales[side] == nullptr) return unscaled(values);
  const Granularity granularity = plan.granularity[side];
  const Shape tiles = scales_shape(values.shape[0], values.shape[1], granularity);
  ConstTensorView scales = view_of(arrays.scales[side][group], DType::f32, tiles);
  if (granularity == kRowTile128) scales.strides = {1, values.shape[0]};
  if (granularity == kBlock128) scales.strides = {(tiles[1] + 3) / 4 * 4, 1};
  return {values, scales, granularity};
}

void multiply_groups(const GroupedPlan& plan) {
  const GroupedArrays& arrays = plan.setup.arrays;
  for (int group = 0; group < plan.setup.groups; ++group) {
    TensorView c = view_of(const_cast<void*>(arrays.values[kResult][group]), plan.types[kResult],
                           {arrays.columns[kResult][group], arrays.rows[kResult][group]});
    c.strides = {arrays.leading[kResult][group], 1};
    multiply(c, operand_of(plan, kRight, !plan.turn_right, group), operand_of(plan, kLeft, plan.turn_left, group), {},
             arrays.factors[1] != 0, false);
  }
}

template <class Args>
std::string refuses_groups(const Args& args) {
  const Device device = args.stream.device();
  return device.kind == DeviceKind::cuda ? refuses_arguments(args, device) : "runs on a CUDA stream only";
}

template <class Args>
void run_groups(const Args& args) {
  const Arena::Scope scope(args.scratch);
  GroupedPlan plan = plan_of(args);
  take_arrays(plan, args.scratch);
  const auto stream = static_cast<cudaStream_t>(args.stream.native());
  cuda::write_arrays(plan.setup, stream);
  emulator::enqueue(stream, [plan] { multiply_groups(plan); });
}

}  // namespace

std::string refuses_grouped(const GroupedGemmArgs& args) { return refuses_groups(args); }
std::string refuses_grouped(const GroupedWeightGemmArgs& args) { return refuses_groups(args); }
void run_grouped(const GroupedGemmArgs& args) { run_groups(args); }
void run_grouped(const GroupedWeightGemmArgs& args) { run_groups(args); }

std::string refuses(const GemmArgs& args) {
  const Device device = args.stream.device();
  if (device.kind != DeviceKind::cuda) return "runs on a CUDA stream only";
  return refuses_arguments(args, device);
}

void run(const GemmArgs& args) {
  const auto work = [c = on_host(args.c), a = on_host(args.a), b = on_host(args.b), bias = on_host(args.bias),
                     accumulate = args.accumulate,
                     powers = args.power_of_two_scales] { multiply(c, a, b, bias, accumulate, powers); };
  emulator::enqueue(static_cast<cudaStream_t>(args.stream.native()), work);
}

}  // namespace shoestring::gemm_detail::cublaslt
