// Dense products through cuBLASLt.
#include "kernels/gemm_cublaslt.h"

#include "kernels/base/check.h"
#include "kernels/base/cuda_check.h"
#include "kernels/gemm_cublaslt_library.h"

namespace shoestring::gemm_detail::cublaslt {
namespace {

constexpr std::size_t kBlockScalesFrom = 120900;  // cuBLASLt 12.9

/// Scales of 128 need a library and a device that know them.
std::string refuses_block_scales(int device) {
  if (library().version() < kBlockScalesFrom) return "block scales need cuBLASLt 12.9";
  return compute_capability(device) == 90 ? "" : "block scales of 128 run on sm_90 only";
}

Layout layout(DType dtype, std::int64_t rows, std::int64_t columns, std::int64_t leading) {
  cublasLtMatrixLayout_t made = nullptr;
  lt_check(library().layout_create(&made, type_of(dtype), static_cast<std::uint64_t>(rows),
                                   static_cast<std::uint64_t>(columns), leading),
           "cublasLtMatrixLayoutCreate");
  return Layout(made);
}

Descriptors descriptors_of(const GemmArgs& args) {
  const LtOperand a = operand_of(args.a.values);
  const LtOperand b = operand_of(args.b.values);
  const std::int64_t m = args.c.shape[0];
  const std::int64_t n = args.c.shape[1];
  const std::int64_t k = args.a.values.shape[1];
  Descriptors d(b.k_contiguous, !a.k_contiguous);
  if (byte_format(args.a.values.dtype)) {
    d.set(CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, args.b.scales.data);
    d.set(CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, args.a.scales.data);
    if (block_scaled(args)) {  // one scale for all is the mode anyway, and older libraries know no other
      const auto mode = [](const ConstScaledView& view) {
        return static_cast<std::int32_t>(view.granularity == kRowTile128 ? kRowTileScales : kBlockScales);
      };
      d.set(kScaleModeA, mode(args.b));
      d.set(kScaleModeB, mode(args.a));
    }
  }
  if (!args.bias.empty()) {
    d.set(CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS);
    d.set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, args.bias.data);
    d.set(CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, static_cast<std::int32_t>(type_of(args.bias.dtype)));
  }
  d.left = layout(args.b.values.dtype, b.k_contiguous ? k : n, b.k_contiguous ? n : k, b.leading);
  d.right = layout(args.a.values.dtype, a.k_contiguous ? k : m, a.k_contiguous ? m : k, a.leading);
  d.result = layout(args.c.dtype, n, m, leading_of(args.c));
  return d;
}

Choice choice_for(const GemmArgs& args, const Descriptors& d, std::int64_t workspace_bytes) {
  const Key key = key_of(args, workspace_bytes);
  return choice_for(args.c.device.index, {key.begin(), key.end()}, d, workspace_bytes, [&](Preference& preference) {
    preference.set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, alignment_of(args.b.values.data));
    preference.set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, alignment_of(args.a.values.data));
    preference.set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, alignment_of(args.c.data));
    preference.set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, alignment_of(args.c.data));
  });
}

/// k = 0: c becomes zeros or the bias, or is kept.
void run_empty_sum(const GemmArgs& args) {
  if (args.accumulate) return;
  if (!args.bias.empty()) return spread_bias(args.c, args.bias, args.stream);
  const std::int64_t size = size_bytes(args.c.dtype);
  cuda_check(cudaMemset2DAsync(args.c.data, static_cast<std::size_t>(leading_of(args.c) * size), 0,
                               static_cast<std::size_t>(args.c.shape[1] * size),
                               static_cast<std::size_t>(args.c.shape[0]), cuda_stream(args.stream)),
             "cudaMemset2DAsync");
}

}  // namespace

std::string refuses(const GemmArgs& args) {
  const Device device = args.stream.device();
  if (device.kind != DeviceKind::cuda) return "runs on a CUDA stream only";
  if (std::string reason = refuses_arguments(args, device); !reason.empty()) return reason;
  if (args.a.values.shape[1] == 0) return {};  // needs no library
  if (!library().fault.empty()) return library().fault;
  if (block_scaled(args)) {
    if (std::string reason = refuses_block_scales(device.index); !reason.empty()) return reason;
  }
  // Asked here, so that who quantises for the product hears of it before anything is enqueued.
  const Arena::Scope scope(args.scratch);
  const Workspace workspace = take_workspace(args.scratch);
  return choice_for(args, descriptors_of(args), workspace.bytes).algorithm ? "" : "cuBLASLt has no algorithm for it";
}

void run(const GemmArgs& args) {
  if (args.a.values.shape[1] == 0) return run_empty_sum(args);
  const Arena::Scope scope(args.scratch);
  const Workspace workspace = take_workspace(args.scratch);
  const Descriptors d = descriptors_of(args);
  const Choice choice = choice_for(args, d, workspace.bytes);
  check(choice.algorithm.has_value(), "cuBLASLt has no algorithm for this product");
  const float alpha = 1;
  const float beta = args.accumulate ? 1 : 0;
  lt_check(library().matmul(choice.handle, d.product.get(), &alpha, args.b.values.data, d.left.get(),
                            args.a.values.data, d.right.get(), &beta, args.c.data, d.result.get(), args.c.data,
                            d.result.get(), &*choice.algorithm, workspace.data,
                            static_cast<std::size_t>(workspace.bytes), cuda_stream(args.stream)),
           "cublasLtMatmul");
}

}  // namespace shoestring::gemm_detail::cublaslt
