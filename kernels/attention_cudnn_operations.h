// The operations of attention's graph in cuDNN's backend API, for attention_cudnn_graph.cpp.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/attention_cudnn_library.h"
#include "kernels/attention_cudnn_plan.h"

namespace shoestring::attention::cudnn {

/// What a tensor is called in the library's list of pointers: operands and their offsets in the order of Operand, each
/// document's length, a backward pass's sums, three numbers given by value, and what only stands between operations.
using Uid = std::int64_t;
constexpr Uid kOperand = 1, kOffsets = kOperand + kOperands, kLengths = kOffsets + kOperands, kSums = kLengths + 1,
              kScale = kSums + 1, kLowest = kScale + 1, kOne = kLowest + 1, kFirstVirtual = kOne + 1;

/// A graph's operations in order, with the descriptors that they name.
struct Operations {
  std::vector<Descriptor> tensors;
  std::vector<Descriptor> kinds;
  std::vector<Descriptor> operations;
};

/// Throws Error(bug) where the library refuses a descriptor.
Operations operations_of(const Graph& graph);

}  // namespace shoestring::attention::cudnn
