// What each precision policy becomes on each kind of device, as far as this program has rows for it: one table
// (device_precision.cpp), read by runs, by plans and by people.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/recipe/recipe.h"

namespace shoestring {

/// The columns of the table. Of devices, the first compute capability that is meant: sm_80 up to 8.8 (A100, A10, RTX
/// 3090), sm_89 (L40S, RTX 4090), sm_90 (H100, H200, H800, H20), sm_100 up to 10.9 (B200, GB200, B300).
enum class ComputeKind : std::uint8_t { cpu, sm_80, sm_89, sm_90, sm_100 };
inline constexpr int kComputeKinds = 5;
std::string_view name(ComputeKind kind);  // "cpu", "sm_80"
/// Of a device of compute capability 90 for sm_90; nothing for one that the table does not know.
std::optional<ComputeKind> compute_kind(int capability);

enum class Becomes : std::uint8_t {
  native,    ///< products in the policy's own format
  emulated,  ///< its codes and scales, multiplied in a wider format: the numbers, not the speed
  refused,
};

struct DevicePrecision {
  Becomes how = Becomes::refused;
  std::string_view text;  ///< what is multiplied, or why nothing is
};
/// Of all products of a model that has experts or has none. Products that the spec sets to BF16 or FP32 are not the
/// policy's: where none is left, it is `bf16`.
DevicePrecision device_precision(const PrecisionSpec& spec, bool experts, ComputeKind kind);

/// Why a run cannot have this precision there, and what to change; empty where it can. `where` names the device.
std::string precision_refusal(const PrecisionSpec& spec, bool experts, std::optional<ComputeKind> kind,
                              const std::string& where);

/// For a plan: what it becomes on every kind of device, a line for each thing it becomes.
std::vector<std::string> precision_lines(const PrecisionSpec& spec, bool experts);

}  // namespace shoestring
