// Arguments of grouped products that one call of cuBLASLt takes, at addresses of a device that nobody reads.
#pragma once

#include <gtest/gtest.h>

#include "kernels/base/workers.h"
#include "kernels/grouped_gemm.h"

namespace shoestring::testing {

inline constexpr Device kGroupedDevice{DeviceKind::cuda, 0};
inline constexpr std::int64_t kGroupedN = 256, kGroupedK = 384, kGroupedRows = 240;
inline constexpr std::int64_t kGroupedOffsets[] = {0, 48, 48, kGroupedRows};

class GroupedOnDevice : public ::testing::Test {
 protected:
  static constexpr std::int64_t kGroups = 3, kN = kGroupedN, kK = kGroupedK, kRows = kGroupedRows;

  static TensorView at(std::uintptr_t megabyte, DType dtype, const Shape& shape) {
    return view_of(reinterpret_cast<void*>((std::uintptr_t{1} << 30) + (megabyte << 20)), dtype, shape, kGroupedDevice);
  }
  static ConstTensorView offsets() { return at(9, DType::i64, {kGroups + 1}); }

  /// c [rows, n], a [rows, k], b [groups * n, k].
  GroupedGemmArgs forward(DType operands, DType c) {
    return {.c = at(0, c, {kRows, kN}),
            .a = unscaled(at(1, operands, {kRows, kK})),
            .b = unscaled(at(2, operands, {kGroups * kN, kK})),
            .offsets = kGroupedOffsets,
            .device_offsets = offsets(),
            .scratch = scratch_,
            .stream = stream_};
  }
  /// The same with E4M3 operands; `scales` of b, those of a are 1x128 beside 128x128.
  GroupedGemmArgs codes(Granularity scales) {
    GroupedGemmArgs args = forward(DType::e4m3, DType::bf16);
    const bool one = scales == kPerTensor;
    const auto tiles = [](std::int64_t count) { return (count + 127) / 128; };
    args.a.scales = one ? at(3, DType::f32, {1, 1}) : at(3, DType::f32, {tiles(kK), kRows}).transposed();
    args.a.granularity = one ? kPerTensor : kRowTile128;
    args.b.scales =
        one ? at(4, DType::f32, {1, 1}) : at(4, DType::f32, {kGroups * tiles(kN), 4}).slice(1, 0, tiles(kK));
    args.b.granularity = scales;
    return args;
  }
  /// c [rows, k], a [rows, n], b as in forward, used as its transpose.
  GroupedGemmArgs input_gradient(DType c) {
    GroupedGemmArgs args = forward(DType::bf16, DType::bf16);
    args.c = at(0, c, {kRows, kK});
    args.a = unscaled(at(1, DType::bf16, {kRows, kN}));
    args.b_transposed = true;
    return args;
  }
  /// c [groups * n, k], a [rows, n], b [rows, k].
  GroupedWeightGemmArgs weight_gradient(DType operands, DType c) {
    return {.c = at(0, c, {kGroups * kN, kK}),
            .a = unscaled(at(1, operands, {kRows, kN})),
            .b = unscaled(at(2, operands, {kRows, kK})),
            .offsets = kGroupedOffsets,
            .device_offsets = offsets(),
            .scratch = scratch_,
            .stream = stream_};
  }
  /// The same with E4M3 operands, both contiguous along the rows.
  GroupedWeightGemmArgs weight_codes(Granularity scales) {
    GroupedWeightGemmArgs args = weight_gradient(DType::e4m3, DType::f32);
    const std::int64_t tiles = segment_tiles(kGroupedOffsets, kGroups);
    const auto turned = [&](std::uintptr_t megabyte, std::int64_t columns) {
      return ConstScaledView{at(megabyte, DType::e4m3, {columns, kRows}).transposed(),
                             at(megabyte + 2, DType::f32, scales == kPerTensor ? Shape{1, 1} : Shape{tiles, columns}),
                             scales};
    };
    args.a = turned(1, kN);
    args.b = turned(2, kK);
    return args;
  }

  Workers workers_{1};
  Stream stream_{workers_};
  Arena scratch_;
};

}  // namespace shoestring::testing
