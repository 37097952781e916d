#include "core/model/device_precision.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <iterator>

#include "core/model/precision.h"
#include "core/recipe/names.h"
#include "kernels/base/check.h"

namespace shoestring {
namespace {

using Cell = DevicePrecision;

constexpr Cell kF64{Becomes::native, "FP64 products of the reference rows"};
constexpr Cell kF32{Becomes::native, "FP32 products"};
constexpr Cell kBf16{Becomes::native, "BF16 products, FP32 sums"};
constexpr Cell kBlocks{Becomes::native, "E4M3 products, scales of 1x128 and 128x128 (cuBLASLt)"};
constexpr Cell kCodes{Becomes::emulated,
                      "E4M3 codes with their scales, multiplied as BF16 or FP32: the numbers of FP8 units, not their "
                      "speed"};
constexpr Cell kNoF64{Becomes::refused, "rows of a CUDA device compute in FP32 and BF16"};
constexpr Cell kNoFp8{Becomes::refused,
                      "its units multiply no FP8, and FP8 codes multiplied as BF16 have no row there"};
constexpr Cell kOneScale{Becomes::refused, "its FP8 units take one scale for a whole operand, not one for each 128"};
constexpr Cell kOf32{Becomes::refused, "its FP8 units take scales of 32, and cuBLASLt scales of 128 on sm_90 only"};
constexpr Cell kTensor{Becomes::native, "E4M3 products, one scale for a whole operand (cuBLASLt)"};
constexpr Cell kNoMx{Becomes::refused, "products with scales of 32 need sm_100"};
constexpr Cell kMxUnbuilt{Becomes::refused, "products with scales of 32 have no row on a CUDA device"};

enum class Part : std::uint8_t { dense, experts };

struct Row {
  PrecisionPolicy policy;
  Part part;
  std::array<Cell, kComputeKinds> cells;
};

// clang-format off
constexpr Row kTable[] = {
    //                                                cpu     sm_80   sm_89      sm_90     sm_100
    {PrecisionPolicy::fp64,       Part::dense,      {{kF64,   kNoF64, kNoF64,    kNoF64,   kNoF64}}},
    {PrecisionPolicy::fp64,       Part::experts,    {{kF64,   kNoF64, kNoF64,    kNoF64,   kNoF64}}},
    {PrecisionPolicy::fp32,       Part::dense,      {{kF32,   kF32,   kF32,      kF32,     kF32}}},
    {PrecisionPolicy::fp32,       Part::experts,    {{kF32,   kF32,   kF32,      kF32,     kF32}}},
    {PrecisionPolicy::bf16,       Part::dense,      {{kBf16,  kBf16,  kBf16,     kBf16,    kBf16}}},
    {PrecisionPolicy::bf16,       Part::experts,    {{kBf16,  kBf16,  kBf16,     kBf16,    kBf16}}},
    {PrecisionPolicy::fp8_block,  Part::dense,      {{kCodes, kNoFp8, kOneScale, kBlocks,  kOf32}}},
    {PrecisionPolicy::fp8_block,  Part::experts,    {{kCodes, kNoFp8, kOneScale, kBlocks,  kOf32}}},
    {PrecisionPolicy::fp8_tensor, Part::dense,      {{kCodes, kNoFp8, kTensor,   kTensor,  kTensor}}},
    {PrecisionPolicy::fp8_tensor, Part::experts,    {{kCodes, kNoFp8, kTensor,   kTensor,  kTensor}}},
    {PrecisionPolicy::mxfp8,      Part::dense,      {{kCodes, kNoFp8, kNoMx,     kNoMx,    kMxUnbuilt}}},
    {PrecisionPolicy::mxfp8,      Part::experts,    {{kCodes, kNoFp8, kNoMx,     kNoMx,    kMxUnbuilt}}},
};
// clang-format on

Cell cell(PrecisionPolicy policy, Part part, ComputeKind kind) {
  const Row* row = std::find_if(std::begin(kTable), std::end(kTable),
                                [&](const Row& one) { return one.policy == policy && one.part == part; });
  check(row != std::end(kTable), "the table of policies lacks {}", word(policy));
  return row->cells[static_cast<std::size_t>(kind)];
}

PrecisionPolicy policy_of_products(const PrecisionSpec& spec) {
  const LinearPrecision covered = covered_precision(spec);
  const bool any = covered.forward == ProductFormat::fp8 || covered.input_gradient == ProductFormat::fp8 ||
                   covered.weight_gradient == ProductFormat::fp8;
  return low_precision(spec) && !any ? PrecisionPolicy::bf16 : spec.policy;
}

}  // namespace

std::string_view name(ComputeKind kind) {
  constexpr std::array<std::string_view, kComputeKinds> kNames = {"cpu", "sm_80", "sm_89", "sm_90", "sm_100"};
  return kNames[static_cast<std::size_t>(kind)];
}

std::optional<ComputeKind> compute_kind(int capability) {
  if (capability == 89) return ComputeKind::sm_89;
  switch (capability / 10) {
    case 8: return ComputeKind::sm_80;
    case 9: return ComputeKind::sm_90;
    case 10: return ComputeKind::sm_100;
    default: return std::nullopt;
  }
}

DevicePrecision device_precision(const PrecisionSpec& spec, bool experts, ComputeKind kind) {
  const PrecisionPolicy policy = policy_of_products(spec);
  const Cell dense = cell(policy, Part::dense, kind);
  if (!experts) return dense;
  const Cell of_experts = cell(policy, Part::experts, kind);
  return of_experts.how > dense.how ? of_experts : dense;
}

std::string precision_refusal(const PrecisionSpec& spec, bool experts, std::optional<ComputeKind> kind,
                              const std::string& where) {
  const std::string policy = fmt::format("precision.policy = {}", word(spec.policy));
  if (!kind) {
    return fmt::format(
        "{}: what it becomes on {} is not known; train on another device, or on the processor "
        "(run.device = cpu)",
        policy, where);
  }
  const DevicePrecision there = device_precision(spec, experts, *kind);
  if (there.how == Becomes::refused) {
    return fmt::format("{} cannot be had on {}: {}; take precision.policy = bf16, or another device", policy, where,
                       there.text);
  }
  if (there.how == Becomes::emulated && spec.native) {
    return fmt::format(
        "precision.native = yes, and {} becomes on {}: {}; train where it is native, take "
        "precision.policy = bf16, or leave precision.native out",
        policy, where, there.text);
  }
  return {};
}

std::vector<std::string> precision_lines(const PrecisionSpec& spec, bool experts) {
  std::vector<std::string> lines;
  std::array<bool, kComputeKinds> told{};
  for (int first = 0; first < kComputeKinds; ++first) {
    if (told[static_cast<std::size_t>(first)]) continue;
    const DevicePrecision what = device_precision(spec, experts, static_cast<ComputeKind>(first));
    std::string kinds;
    for (int other = first; other < kComputeKinds; ++other) {
      const auto kind = static_cast<ComputeKind>(other);
      if (device_precision(spec, experts, kind).text != what.text) continue;
      told[static_cast<std::size_t>(other)] = true;
      kinds += fmt::format("{}{}", kinds.empty() ? "" : ", ", name(kind));
    }
    lines.push_back(fmt::format("{} on {}: {}{}", word(spec.policy), kinds,
                                what.how == Becomes::refused ? "refused, " : "", what.text));
  }
  return lines;
}

}  // namespace shoestring
