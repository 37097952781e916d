// The CUDA rows of attention's tables, for attention.cpp.
#pragma once

#include <string>

#include "kernels/attention.h"

namespace shoestring::attention::cuda {

std::string refuses(const AttentionArgs& args);
std::string refuses(const AttentionBackwardArgs& args);
void forward(const AttentionArgs& args);
void backward(const AttentionBackwardArgs& args);
/// Bytes of scratch that backward takes.
inline std::int64_t scratch_bytes(std::int64_t tokens, std::int64_t heads) {
  return Arena::footprint(tokens * heads * size_bytes(DType::f32));
}

}  // namespace shoestring::attention::cuda
