#include "kernels/gemm_cublaslt_plan.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "kernels/base/copy.h"

namespace shoestring::gemm_detail::cublaslt {
namespace {

constexpr std::uint32_t kByteAlignment = 16;  // what FP8 products ask of pointers and strides in bytes

std::string refuses_scales(const ConstScaledView& view, const char* which) {
  const std::string prefix = std::string("scales of ") + which + " ";
  if (view.scales.dtype != DType::f32) return prefix + "are not f32";
  if (view.granularity == kPerTensor) return {};  // a single float may lie anywhere
  if (alignment_of(view.scales.data) < kByteAlignment) return prefix + "are not aligned to 16 bytes";
  const Strides& s = view.scales.strides;
  const std::int64_t blocks = (view.values.shape[1] + 127) / 128;
  if (view.granularity == kRowTile128) {
    return s[0] == 1 && (blocks == 1 || s[1] == view.values.shape[0]) ? "" : prefix + "are not contiguous along rows";
  }
  if (view.granularity != kBlock128) return prefix + "are neither per tensor, 1x128 nor 128x128";
  const bool padded = s[1] == 1 && (view.scales.shape[0] == 1 || s[0] == (blocks + 3) / 4 * 4);
  return padded ? "" : prefix + "are not contiguous along k in lines padded to 4";
}

std::string refuses_alignment(const GemmArgs& args) {
  for (const auto& [data, which] :
       {std::pair{args.a.values.data, "a"}, std::pair{args.b.values.data, "b"},
        std::pair{static_cast<const void*>(args.c.data), "c"}, std::pair{args.bias.data, "bias"}}) {
    if (alignment_of(data) < kByteAlignment) return std::string(which) + " is not aligned to 16 bytes";
  }
  const std::int64_t row_bytes = leading_of(args.c) * size_bytes(args.c.dtype);
  return row_bytes % kByteAlignment == 0 ? "" : "rows of c are not a multiple of 16 bytes apart";
}

std::string refuses_bytes(const GemmArgs& args) {
  const ConstTensorView& a = args.a.values;
  const ConstTensorView& b = args.b.values;
  if (a.dtype == DType::e5m2 && b.dtype == DType::e5m2) return "e5m2 by e5m2 is not supported";
  if (!operand_of(a).k_contiguous || !operand_of(b).k_contiguous) return "8-bit operands must have k contiguous";
  if (a.shape[1] % 16 != 0 || a.strides[0] % 16 != 0 || b.strides[0] % 16 != 0) return "k and strides not of 16";
  if (a.shape[0] % 8 != 0 || b.shape[0] % 8 != 0) return "m or n is not a multiple of 8";
  if (!args.bias.empty() && args.bias.dtype == DType::f32) {
    return "cuBLASLt adds no f32 bias to a product of 8-bit operands";
  }
  if (std::string reason = refuses_alignment(args); !reason.empty()) return reason;
  for (const auto& [view, which] : {std::pair{&args.a, "a"}, std::pair{&args.b, "b"}}) {
    if (std::string reason = refuses_scales(*view, which); !reason.empty()) return reason;
  }
  if ((args.a.granularity == kPerTensor) != (args.b.granularity == kPerTensor)) {
    return "one operand has a single scale, the other has tiles";
  }
  const bool tall = args.a.granularity == kBlock128 && args.b.granularity == kBlock128;
  return tall ? "128x128 by 128x128 scales" : "";
}

std::string refuses_devices(const GemmArgs& args, Device device) {
  const auto elsewhere = [&](const ConstTensorView& view) { return !view.empty() && view.device != device; };
  for (const auto& [view, which] : {std::pair{ConstTensorView(args.c), "c"}, std::pair{args.a.values, "a"},
                                    std::pair{args.b.values, "b"}, std::pair{args.a.scales, "the scales of a"},
                                    std::pair{args.b.scales, "the scales of b"}, std::pair{args.bias, "the bias"}}) {
    if (elsewhere(view)) return to_string(view.device) + " holds " + which;
  }
  const Device scratch = args.scratch.device();
  return args.scratch.capacity_bytes() == 0 || scratch == device ? "" : to_string(scratch) + " holds the scratch";
}

}  // namespace

bool byte_format(DType dtype) { return dtype == DType::e4m3 || dtype == DType::e5m2; }

LtOperand operand_of(const ConstTensorView& view) {
  if (view.strides[1] == 1 || view.shape[1] <= 1) return {true, std::max(view.strides[0], view.shape[1])};
  if (view.strides[0] == 1 || view.shape[0] <= 1) return {false, view.strides[1]};
  return {false, 0};
}

std::int64_t leading_of(const TensorView& c) { return std::max(c.strides[0], c.shape[1]); }

std::uint32_t alignment_of(const void* data) {
  const auto low_bits = static_cast<std::uint32_t>(reinterpret_cast<std::uintptr_t>(data) % kAlignment);
  return low_bits == 0 ? kAlignment : std::uint32_t{1} << std::countr_zero(low_bits);
}

Workspace workspace_of(void* data, std::int64_t bytes) {
  const auto behind = static_cast<std::int64_t>(reinterpret_cast<std::uintptr_t>(data) % kAlignment);
  const std::int64_t skipped = behind == 0 ? 0 : kAlignment - behind;
  const std::int64_t left = std::min((bytes - skipped) / kAlignment * kAlignment, kWorkspaceBytes);
  if (left <= 0) return {};
  return {static_cast<char*>(data) + skipped, left};
}

std::string refuses_arguments(const GemmArgs& args, Device device) {
  if (std::string reason = refuses_devices(args, device); !reason.empty()) return reason;
  if (args.packed_b != nullptr) return "b is packed for another variant";
  const DType a = args.a.values.dtype;
  const DType b = args.b.values.dtype;
  const bool bytes = byte_format(a) && byte_format(b);
  if (args.c.dtype != DType::f32 && args.c.dtype != DType::bf16) return "c must be f32 or bf16";
  if (!args.bias.empty() && args.bias.dtype != args.c.dtype) return "bias and c differ in format";
  if (!bytes && (a != b || (a != DType::f32 && a != DType::bf16))) return "a and b must be f32, bf16 or 8-bit alike";
  if (args.a.values.shape[1] == 0) {
    return args.accumulate && !args.bias.empty() ? "nothing adds a bias to c where k is 0" : "";
  }
  if (bytes) return refuses_bytes(args);
  if (a == DType::f32 && args.c.dtype != DType::f32) return "f32 operands make an f32 result";
  if (operand_of(args.a.values).leading == 0 || operand_of(args.b.values).leading == 0) {
    return "one dim of each operand must be contiguous";
  }
  return {};
}

bool block_scaled(const GemmArgs& args) { return byte_format(args.a.values.dtype) && args.a.granularity != kPerTensor; }

Key key_of(const GemmArgs& args, std::int64_t workspace_bytes) {
  const auto format = [](DType dtype) { return static_cast<std::int64_t>(dtype); };
  const LtOperand a = operand_of(args.a.values);
  const LtOperand b = operand_of(args.b.values);
  return {args.c.shape[0],
          args.c.shape[1],
          args.a.values.shape[1],
          format(args.c.dtype),
          format(args.a.values.dtype),
          format(args.b.values.dtype),
          a.k_contiguous,
          b.k_contiguous,
          a.leading,
          b.leading,
          leading_of(args.c),
          args.a.granularity.rows,
          args.a.granularity.columns,
          args.b.granularity.rows,
          args.b.granularity.columns,
          args.accumulate,
          args.bias.empty() ? -1 : format(args.bias.dtype),
          workspace_bytes,
          args.c.device.index,
          alignment_of(args.a.values.data),
          alignment_of(args.b.values.data),
          alignment_of(args.c.data),
          alignment_of(args.bias.data)};
}

void spread_bias(TensorView c, const ConstTensorView& bias, Stream& stream) {
  const std::int64_t rows = c.shape[0];
  const std::int64_t columns = c.shape[1];
  ConstTensorView row = bias;
  row.shape = {1, columns};
  row.strides = {columns, 1};
  copy(c.slice(0, 0, 1), row, stream);
  for (std::int64_t done = 1; done < rows;) {
    const std::int64_t more = std::min(done, rows - done);
    copy(c.slice(0, done, more), c.slice(0, 0, more), stream);
    done += more;
  }
}

}  // namespace shoestring::gemm_detail::cublaslt
