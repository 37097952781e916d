// Inside of gemm, not for other code: right operands as panels of 32 columns with their scales.
#pragma once

#include "kernels/gemm_problem.h"

namespace shoestring::gemm_detail {

/// The packed panels of an [n, k] operand.
struct PanelShape {
  static constexpr std::int64_t kGroup = 4;  ///< panels that one worker packs together

  std::int64_t panels = 0;
  std::int64_t panel_bytes = 0;
  std::int64_t scale_blocks = 0;  ///< 0 where there is one factor or none
  std::int64_t scale_bytes = 0;   ///< for the whole matrix

  PanelShape() = default;
  PanelShape(const Machine& machine, std::int64_t n, std::int64_t k, std::int64_t k_per_scale);
  std::int64_t value_bytes() const { return panels * panel_bytes; }
  std::int64_t groups() const { return divide_up(panels, kGroup); }
};

/// One group of panels into `values`, and their scales into `scales` ([panel][scale_blocks][32]; nullptr: none wanted);
/// both belong to the whole matrix. `k_per_scale` may be finer than b's own.
void pack_panel_group(const Machine& machine, const Operand& b, const PanelShape& shape, std::int64_t k_per_scale,
                      std::int64_t group, std::byte* values, float* scales);

}  // namespace shoestring::gemm_detail
