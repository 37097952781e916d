#include "core/training/reference_cost.h"

#include <algorithm>

#include "kernels/base/check.h"
#include "kernels/variant_list.h"

namespace shoestring {
namespace {

constexpr double kMostTimes = 10;

enum class UsedBy { all, experts, fp8 };

struct HotOp {
  std::string_view op;
  UsedBy used_by;
  double plain_ms;  // of one core, per token
};

// Profiles of one core of Zen 3 in plain rows (perf, 4 kHz of CPU time, sequences of 512): tiny_dense in FP32 with the
// vocabulary of 4096 it is made for, quantise from tiny_moe in FP8. What grouped products take is part of gemm's
// figure.
constexpr HotOp kHotOps[] = {
    {"gemm", UsedBy::all, 5.1},
    {"attention_forward", UsedBy::all, 0.78},
    {"attention_backward", UsedBy::all, 2.05},
    {"cross_entropy", UsedBy::all, 0.08},
    {"rms_norm_forward", UsedBy::all, 0.017},
    {"rms_norm_input_gradient", UsedBy::all, 0.033},
    {"rms_norm_weight_gradient", UsedBy::all, 0.029},
    {"rope", UsedBy::all, 0.027},
    {"swiglu_forward", UsedBy::all, 0.11},
    {"swiglu_gradient", UsedBy::all, 0.15},
    {"adamw_step", UsedBy::all, 0.018},
    {"grouped_gemm", UsedBy::experts, 0},
    {"grouped_weight_gemm", UsedBy::experts, 0},
    {"quantize", UsedBy::fp8, 0.72},
};

// The same step of tiny_dense on the vector units of the same core: PyTorch's eager FP32 one (1,890 tokens/s on two).
constexpr double kVectorStepMs = 1.06;

}  // namespace

std::string ReferenceCost::to_string() const {
  if (ops.empty()) return {};
  std::string list;
  for (const std::string& op : ops) list += (list.empty() ? "" : ", ") + op;
  return fmt::format("no vector rows here for {}: a step takes about {:.2g} times as long", list, times);
}

ReferenceCost reference_cost(const Recipe& recipe, std::string_view (*lacks)(std::string_view variant)) {
  const auto used = [&](UsedBy by) {
    switch (by) {
      case UsedBy::all: return true;
      case UsedBy::experts: return recipe.model.experts > 0;
      case UsedBy::fp8: break;
    }
    return recipe.precision.policy == PrecisionPolicy::fp8_block ||
           recipe.precision.policy == PrecisionPolicy::fp8_tensor || recipe.precision.policy == PrecisionPolicy::mxfp8;
  };
  ReferenceCost cost;
  for (const HotOp& hot : kHotOps) {
    if (!used(hot.used_by)) continue;
    const auto table = std::find_if(op_variants().begin(), op_variants().end(),
                                    [&](const OpVariants& known) { return known.op == hot.op; });
    check(table != op_variants().end(), "no table of variants is named {}", hot.op);
    const auto best = std::find_if(table->variants.begin(), table->variants.end(),
                                   [&](std::string_view variant) { return lacks(variant).empty(); });
    check(best != table->variants.end(), "{}: no row runs on this machine", hot.op);
    if (*best != "reference" && *best != "portable") continue;
    cost.ops.push_back(fmt::format("{}={}", hot.op, *best));
    cost.times += hot.plain_ms / kVectorStepMs;
  }
  return cost;
}

void check_reference_cost(const ReferenceCost& cost, AllowReference allowed) {
  if (allowed != AllowReference::automatic || cost.times <= kMostTimes) return;
  fail(ExitCode::bad_recipe, "{}; set kernels.allow_reference = yes to train all the same", cost.to_string());
}

}  // namespace shoestring
