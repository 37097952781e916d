// What a library's attention reads of documents, made on the device, and its statistics put in our order. For
// attention_cudnn.cpp; see attention_documents_cuda.cu.
#pragma once

#include <array>
#include <cstdint>

#include "kernels/attention_cudnn_plan.h"

namespace shoestring::attention::cuda {

/// From one operand's offsets to the next: room + 1 and what brings them to 16 bytes.
constexpr int offsets_row(int room) { return (room + 4) / 4 * 4; }

/// Travels as an argument of the kernel: the host knows where documents begin.
struct DocumentTable {
  std::array<std::int32_t, cudnn::kMostDocuments + 1> starts;  ///< of `count` documents, then the last one's end
  int count;
  int room;  ///< documents behind `count` are empty
  std::array<std::int32_t, cudnn::kOperands> token_strides;
  std::int32_t* lengths;  ///< [room]
  std::int32_t* offsets;  ///< [operands, offsets_row]: start times the operand's token stride
};
void write_documents(const DocumentTable& table, Stream& stream);

/// Statistics of some heads, ours [heads, tokens] and the library's: [tokens, heads], or [documents, heads, length]
/// where `length` is not 0.
struct Statistics {
  float* ours;
  float* library;
  std::int64_t tokens, heads, length;
};
void statistics_from_library(const Statistics& statistics, Stream& stream);
void statistics_to_library(const Statistics& statistics, Stream& stream);

}  // namespace shoestring::attention::cuda
