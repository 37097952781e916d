// Grouped products through cuBLASLt (experimental there, from 13.1 on): one call for all groups, whose extents and
// places it reads on the device. Factors stand on the device too: as host numbers they spoil results on sm_90 before
// 13.6.2 (NVIDIA's notes of cuBLAS 13.4 to 13.7).
#include "kernels/grouped_gemm_cublaslt.h"

#include "kernels/base/check.h"
#include "kernels/base/cuda_check.h"
#include "kernels/gemm_cublaslt_library.h"
#include "kernels/grouped_gemm_arrays.h"
#include "kernels/grouped_gemm_plan.h"

namespace shoestring::gemm_detail::cublaslt {
namespace {

Layout layout(const GroupedPlan& plan, Side side) {
  const GroupedArrays& arrays = plan.setup.arrays;
  cublasLtMatrixLayout_t made = nullptr;
  lt_check(library().grouped_layout_create(&made, type_of(plan.types[side]), plan.setup.groups, arrays.rows[side],
                                           arrays.columns[side], arrays.leading[side]),
           "cublasLtGroupedMatrixLayoutCreate");
  return Layout(made);
}

std::int32_t scale_mode(Granularity granularity) {
  if (granularity == kPerTensor) return static_cast<std::int32_t>(kOneScaleEach);
  return static_cast<std::int32_t>(granularity == kBlock128 ? kBlockScales : kRowTileScales);
}

Descriptors descriptors_of(const GroupedPlan& plan) {
  Descriptors d(plan.turn_left, plan.turn_right);
  d.set(CUBLASLT_MATMUL_DESC_POINTER_MODE, CUBLASLT_POINTER_MODE_DEVICE);
  if (plan.setup.arrays.scales[kLeft] != nullptr) {
    d.set(CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, plan.setup.arrays.scales[kLeft]);
    d.set(CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, plan.setup.arrays.scales[kRight]);
    d.set(kScaleModeA, scale_mode(plan.granularity[kLeft]));
    d.set(kScaleModeB, scale_mode(plan.granularity[kRight]));
  }
  d.left = layout(plan, kLeft);
  d.right = layout(plan, kRight);
  d.result = layout(plan, kResult);
  return d;
}

void prefer(const GroupedPlan& plan, Preference& preference) {
  for (const auto which : {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
                           CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES}) {
    preference.set(which, std::uint32_t{16});
  }
  preference.set(kAverageRows, plan.average[0]);
  preference.set(kAverageColumns, plan.average[1]);
  preference.set(kAverageReduction, plan.average[2]);
}

/// A product ready to be enqueued; what it took of the scratch is its caller's to give back.
struct Ready {
  GroupedPlan plan;
  Workspace workspace;
  Descriptors descriptors;
  Choice choice;
};
template <class Args>
Ready ready(const Args& args) {
  GroupedPlan plan = plan_of(args);
  take_arrays(plan, args.scratch);
  const Workspace workspace = take_workspace(args.scratch);
  Descriptors d = descriptors_of(plan);
  const int device = args.stream.device().index;
  Choice choice = choice_for(device, key_of(plan, workspace.bytes, device), d, workspace.bytes,
                             [&](Preference& preference) { prefer(plan, preference); });
  return {plan, workspace, std::move(d), choice};
}

template <class Args>
std::string refuses(const Args& args) {
  const Device device = args.stream.device();
  if (device.kind != DeviceKind::cuda) return "runs on a CUDA stream only";
  if (!library().fault.empty()) return library().fault;
  const bool can = library().grouped_layout_create != nullptr;
  const int capability = compute_capability(device.index);
  if (std::string reason = refuses_library(library().version(), capability, can); !reason.empty()) return reason;
  if (std::string reason = refuses_arguments(args, device); !reason.empty()) return reason;
  if (capability != 90 && args.a.scaled() && args.a.granularity != kPerTensor) {
    return "block scales of 128 run on sm_90 only";
  }
  const Arena::Scope scope(args.scratch);
  return ready(args).choice.algorithm ? "" : "cuBLASLt has no algorithm for it";
}

template <class Args>
void run(const Args& args) {
  const Arena::Scope scope(args.scratch);
  const Ready r = ready(args);
  check(r.choice.algorithm.has_value(), "cuBLASLt has no algorithm for this product");
  const GroupedArrays& arrays = r.plan.setup.arrays;
  const cudaStream_t stream = cuda_stream(args.stream);
  cuda::write_arrays(r.plan.setup, stream);
  lt_check(library().matmul(r.choice.handle, r.descriptors.product.get(), &arrays.factors[0], arrays.values[kLeft],
                            r.descriptors.left.get(), arrays.values[kRight], r.descriptors.right.get(),
                            &arrays.factors[1], arrays.values[kResult], r.descriptors.result.get(),
                            arrays.values[kResult], r.descriptors.result.get(), &*r.choice.algorithm, r.workspace.data,
                            static_cast<std::size_t>(r.workspace.bytes), stream),
           "cublasLtMatmul");
}

template <class Args>
void try_all(const Args& args) {
  const Arena::Scope scope(args.scratch);
  GroupedPlan plan = plan_of(args);
  take_arrays(plan, args.scratch);
  descriptors_of(plan);
  Preference preference(kWorkspaceBytes);
  prefer(plan, preference);
}

}  // namespace

std::string refuses_grouped(const GroupedGemmArgs& args) { return refuses(args); }
std::string refuses_grouped(const GroupedWeightGemmArgs& args) { return refuses(args); }
void run_grouped(const GroupedGemmArgs& args) { run(args); }
void run_grouped(const GroupedWeightGemmArgs& args) { run(args); }
void try_descriptors(const GroupedGemmArgs& args) { try_all(args); }
void try_descriptors(const GroupedWeightGemmArgs& args) { try_all(args); }

}  // namespace shoestring::gemm_detail::cublaslt
