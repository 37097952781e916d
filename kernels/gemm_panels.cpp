#include "kernels/gemm_panels.h"

#include <algorithm>
#include <vector>

#include "kernels/base/check.h"
#include "kernels/base/workers.h"

namespace shoestring::gemm_detail {
namespace {

using Access = PackedMatrixAccess;

/// Scales of the columns from `first` on; columns past the end repeat the last.
void pack_panel_scales(const Operand& b, std::int64_t first, std::int64_t per_scale, std::int64_t blocks, float* to) {
  for (std::int64_t block = 0; block < blocks; ++block) {
    for (std::int64_t j = 0; j < kPanel; ++j) {
      const std::int64_t row = std::min(first + j, b.rows - 1);
      to[block * kPanel + j] = b.scaling == Scaling::none ? 1.0f : b.scale(row, block * per_scale);
    }
  }
}

}  // namespace

PanelShape::PanelShape(const Machine& machine, std::int64_t n, std::int64_t k, std::int64_t k_per_scale)
    : panels(divide_up(n, kPanel)),
      panel_bytes(round_up(k, machine.k_multiple) * kPanel * machine.panel_element_bytes),
      scale_blocks(k_per_scale == 0 ? 0 : divide_up(k, k_per_scale)),
      scale_bytes(scale_blocks == 0 ? 64 : panels * scale_blocks * kPanel * 4) {}

void pack_panel_group(const Machine& machine, const Operand& b, const PanelShape& shape, std::int64_t k_per_scale,
                      std::int64_t group, std::byte* values, float* scales) {
  const std::int64_t first = group * PanelShape::kGroup;
  const std::int64_t end = std::min(first + PanelShape::kGroup, shape.panels);
  machine.pack_panels(b, first * kPanel, end - first, values + first * shape.panel_bytes);
  for (std::int64_t panel = first; scales != nullptr && panel < end; ++panel) {
    pack_panel_scales(b, panel * kPanel, k_per_scale, shape.scale_blocks, scales + panel * shape.scale_blocks * kPanel);
  }
}

void pack(const Machine& machine, std::span<const ConstScaledView> matrices, bool power_of_two, PackedMatrix& into,
          Stream& stream) {
  check(!matrices.empty(), "pack needs a matrix");
  const std::int64_t n = matrices[0].values.shape[0];
  const std::int64_t k = matrices[0].values.shape[1];
  const auto count = static_cast<std::int64_t>(matrices.size());
  if (stream.dry()) {  // scales stand apart where their values may have it so
    const ConstScaledView& any = matrices[0];
    Access::reserve(into, PackedMatrix::packed_bytes(n, k, any.values.dtype, any.granularity, count), stream.device());
    return Access::describe(into, machine.layout, count, n, k);
  }
  std::vector<Operand> operands;
  for (const ConstScaledView& matrix : matrices) operands.push_back(operand_of(matrix, power_of_two));
  const bool fold = std::ranges::all_of(operands, &Operand::folded);
  if (!fold && matrices[0].scaled()) std::ranges::for_each(operands, &Operand::keep_scales);
  const std::int64_t per_scale = operands[0].scaling == Scaling::blocks ? operands[0].k_per_scale : 0;
  const PanelShape shape(machine, n, k, per_scale);
  std::byte* data = Access::reserve(into, count * (shape.value_bytes() + shape.scale_bytes), stream.device());
  Access::describe(into, machine.layout, count, n, k);
  Access::scaled(into, fold, per_scale);
  stream.workers().each(count * shape.groups(), [&](std::int64_t item) {
    const std::int64_t at = item / shape.groups();
    const std::int64_t group = item % shape.groups();
    const Operand& operand = operands[static_cast<std::size_t>(at)];
    auto* scales = reinterpret_cast<float*>(data + count * shape.value_bytes() + at * shape.scale_bytes);
    pack_panel_group(machine, operand, shape, per_scale, group, data + at * shape.value_bytes(),
                     per_scale == 0 ? nullptr : scales);
    if (per_scale == 0 && group == 0) scales[0] = operand.scaling == Scaling::uniform ? operand.scale(0, 0) : 1.0f;
  });
}

std::int64_t panel_bytes(std::int64_t n, std::int64_t k) {
  const std::int64_t columns = round_up(n, kPanel);
  return Arena::footprint(columns * round_up(k, 32) * 4) + Arena::footprint(columns * divide_up(k, 32) * 4);
}

}  // namespace shoestring::gemm_detail
