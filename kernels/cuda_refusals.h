// Why a CUDA row of a variant table declines; what every op would say in the same words. Formats nothing: nvcc reads
// it.
#pragma once

#include <initializer_list>
#include <string>

#include "kernels/base/tensor.h"

namespace shoestring {

/// Empty when `stream` is one of a device that this build has code for, and each tensor that is there is on it. The
/// first tensor's format must be f32 or bf16 where `floating` says so.
std::string needs_cuda(const Stream& stream, std::initializer_list<ConstTensorView> tensors, bool floating = true);

/// Whether a kernel on `device` can reach `data`: device memory of it, or pinned.
bool reaches(Device device, const void* data);

}  // namespace shoestring
