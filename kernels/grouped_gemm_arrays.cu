// What cuBLASLt reads of a grouped product, written down on the device from the groups' offsets: where matrices begin,
// how large they are, and scales of 1x128 with each group's apart.
//
// Floors: a launch each; the scales move once, a 32nd of the codes' bytes and back.
#include "kernels/base/launch.cuh"
#include "kernels/grouped_gemm_arrays.h"

namespace shoestring::gemm_detail::cublaslt {
namespace cuda {
namespace {

constexpr int kThreads = 128;
constexpr std::int64_t kTile = 128;

struct Group {
  int index;
  std::int64_t begin, rows, tiles_before;
};

__device__ const void* place(const Places& places, const Group& group, int experts) {
  return static_cast<const char*>(places.data) + group.begin * places.of_row + group.tiles_before * places.of_tile +
         group.index % experts * places.of_expert + group.index / experts * places.of_source;
}

/// A thread a group.
__global__ void __launch_bounds__(kThreads) arrays_kernel(const __grid_constant__ GroupedSetup s) {
  Group group{static_cast<int>(blockIdx.x * kThreads + threadIdx.x), 0, 0, 0};
  if (group.index == 0) {
    s.arrays.factors[0] = 1;
    s.arrays.factors[1] = s.accumulate ? 1.0f : 0.0f;
  }
  if (group.index >= s.groups) return;
  group.begin = s.offsets[group.index];
  group.rows = s.offsets[group.index + 1] - group.begin;
  if (s.matrix[kLeft].scales.of_tile != 0 || s.matrix[kRight].scales.of_tile != 0) {
    for (int g = 0; g < group.index; ++g) {
      group.tiles_before += (s.offsets[g + 1] - s.offsets[g] + kTile - 1) / kTile;
    }
  }
  const auto extent = [&](int given) { return given == kRowsOfGroup ? static_cast<int>(group.rows) : given; };
  for (int side = 0; side < 3; ++side) {
    const GroupedMatrix& matrix = s.matrix[side];
    s.arrays.values[side][group.index] = place(matrix.values, group, s.experts);
    s.arrays.rows[side][group.index] = extent(matrix.rows);
    s.arrays.columns[side][group.index] = extent(matrix.columns);
    s.arrays.leading[side][group.index] = matrix.leading;
    if (side < 2 && s.arrays.scales[side] != nullptr) {
      s.arrays.scales[side][group.index] = place(matrix.scales, group, s.experts);
    }
  }
}

/// A block a group and a tile of 128 columns: one row of scales of it.
__global__ void __launch_bounds__(kThreads) scales_kernel(const __grid_constant__ GroupedSetup s) {
  const std::int64_t begin = s.offsets[blockIdx.x], rows = s.offsets[blockIdx.x + 1] - begin;
  const float* from = s.scale_rows.from + blockIdx.y * s.scale_rows.stride + begin;
  float* to = s.scale_rows.to + begin * s.scale_rows.tiles + blockIdx.y * rows;
  for (std::int64_t row = threadIdx.x; row < rows; row += kThreads) to[row] = from[row];
}

}  // namespace

void write_arrays(const GroupedSetup& setup, cudaStream_t stream) {
  if (setup.host_offsets != nullptr) {
    cuda_check(
        cudaMemcpyAsync(const_cast<std::int64_t*>(setup.offsets), setup.host_offsets,
                        static_cast<std::size_t>(setup.groups + 1) * sizeof(std::int64_t), cudaMemcpyDefault, stream),
        "cudaMemcpyAsync");
  }
  const auto blocks = static_cast<unsigned>((setup.groups + kThreads - 1) / kThreads);
  launch("grouped_gemm: arrays", arrays_kernel, {blocks, kThreads, stream}, setup);
  if (setup.scale_rows.to == nullptr) return;
  const dim3 pieces(static_cast<unsigned>(setup.groups), static_cast<unsigned>(setup.scale_rows.tiles));
  launch("grouped_gemm: scales", scales_kernel, {pieces, kThreads, stream}, setup);
}

}  // namespace cuda
}  // namespace shoestring::gemm_detail::cublaslt
