// What is decided about a product before cuBLASLt sees it, for gemm_cublaslt.cpp. Needs neither the library nor a
// device, so that tests reach it anywhere; nothing here reads what a tensor's pointer points to.
#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "kernels/gemm.h"

namespace shoestring::gemm_detail::cublaslt {

inline constexpr std::int64_t kWorkspaceBytes = std::int64_t{32} << 20;
inline constexpr std::int64_t kAlignment = 256;  ///< of a workspace; no algorithm asks more of a matrix
inline constexpr std::int64_t kScratchBytes = kWorkspaceBytes + kAlignment;  ///< the most that a product takes

/// E4M3 or E5M2: formats that come with scales.
bool byte_format(DType dtype);

/// An operand [rows, k] in cuBLASLt's terms; `leading` 0: neither dim is contiguous.
struct LtOperand {
  bool k_contiguous = false;
  std::int64_t leading = 0;
};
LtOperand operand_of(const ConstTensorView& view);

/// From one row of c to the next, in elements.
std::int64_t leading_of(const TensorView& c);

/// The largest power of two, at most kAlignment, that divides the address; of nullptr kAlignment.
std::uint32_t alignment_of(const void* data);

/// The part of `bytes` bytes at `data` that may be given to cuBLASLt: aligned to kAlignment, at most kWorkspaceBytes;
/// {nullptr, 0} when too little is left.
struct Workspace {
  void* data = nullptr;
  std::int64_t bytes = 0;
};
Workspace workspace_of(void* data, std::int64_t bytes);

/// Why a product with everything on `device` is not for cuBLASLt; empty when nothing in the arguments speaks against
/// it. What the library and the device say is asked in gemm_cublaslt.cpp.
std::string refuses_arguments(const GemmArgs& args, Device device);

/// Whether 8-bit operands have one scale for each 128 of k.
bool block_scaled(const GemmArgs& args);

/// What decides the algorithm: extents, formats, orientations, strides, scales, accumulation, bias, workspace, device,
/// and how a, b, c and bias are aligned.
using Key = std::array<std::int64_t, 23>;
Key key_of(const GemmArgs& args, std::int64_t workspace_bytes);

/// Every row of `c` [m, n] becomes `bias` [n] of the same format, by copies on `stream`: a row, two rows, four.
void spread_bias(TensorView c, const ConstTensorView& bias, Stream& stream);

}  // namespace shoestring::gemm_detail::cublaslt
