// Two small kernels around a library's attention. Floors: bytes over bandwidth, some megabytes at most; the statistics'
// stores (loads) skip a line each, which L2 gathers.
#include "kernels/attention_documents_cuda.h"

#include "kernels/cuda_elements.cuh"

namespace shoestring::attention::cuda {
namespace {

constexpr int kThreads = 256;

__global__ void __launch_bounds__(kThreads) documents_kernel(const __grid_constant__ DocumentTable table) {
  for (int i = static_cast<int>(threadIdx.x); i <= table.room; i += kThreads) {
    const std::int32_t start = table.starts[min(i, table.count)];
    if (i < table.room) table.lengths[i] = i < table.count ? table.starts[i + 1] - start : 0;
    for (int operand = 0; operand < cudnn::kOperands; ++operand) {
      table.offsets[operand * offsets_row(table.room) + i] = start * table.token_strides[operand];
    }
  }
}

template <bool to_library>
__global__ void __launch_bounds__(kElementThreads) statistics_kernel(const __grid_constant__ Statistics s) {
  for (std::int64_t item = first_element(); item < s.tokens * s.heads; item += element_step()) {
    const std::int64_t head = item / s.tokens;
    const std::int64_t token = item % s.tokens;
    const std::int64_t there =
        s.length == 0 ? token * s.heads + head : (token / s.length * s.heads + head) * s.length + token % s.length;
    if (to_library) {
      s.library[there] = s.ours[item];
    } else {
      s.ours[item] = s.library[there];
    }
  }
}

}  // namespace

void write_documents(const DocumentTable& table, Stream& stream) {
  launch("attention: documents", documents_kernel, {1, kThreads, cuda_stream(stream)}, table);
}
void statistics_from_library(const Statistics& s, Stream& stream) {
  launch("attention: statistics", statistics_kernel<false>, over_elements(s.tokens * s.heads, stream), s);
}
void statistics_to_library(const Statistics& s, Stream& stream) {
  launch("attention: statistics", statistics_kernel<true>, over_elements(s.tokens * s.heads, stream), s);
}

}  // namespace shoestring::attention::cuda
