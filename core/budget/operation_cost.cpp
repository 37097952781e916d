#include "core/budget/operation_cost.h"

#include <fmt/core.h>

#include <algorithm>
#include <string>

#include "kernels/base/check.h"

namespace shoestring {
namespace {

// What streaming kernels reach of the specified bandwidth: 0.83 to 0.88 on A100 and H100 (BabelStream, as published).
constexpr double kMemoryShare = 0.85;

// The first two were fitted, together with the A100's half extent, on the 159 rows of llm_foundry.csv and the eight of
// korthikanti.csv (tests/core/budget/published, 2026-11-29). "fused" was set from what its kernels read and write, but
// for its share of products: of 0.92 (the H100 under its power limit) and 1, the one that is nearer to nemo_h100.csv.
constexpr Stack kFused = {
    .name = "fused",
    .source = "set from what fused kernels read and write; its share of products chosen on nemo_h100.csv",
    .product_share = 0.92,
    .attention_share = 0.65,
    .hidden_passes = 5.3,
    .feed_forward_passes = 2.7,
    .loss_bytes = 20,
    .quantise_bytes = 4,
    .launch_seconds = 42e-6,
    .sharding_interference = 0.3,
    .tensor_exposed = 0.5,
    .gradient_exposed = 0.2};

// Megatron-Core's mixtures. Its all-to-all dispatcher sends BF16. A layer of Qwen3 30B takes 8.5 ms on B200 and 9.0 on
// H100 where a device's work is 3.5 and 6.6 ms: hundreds of small launches, router and permutation above all, and a
// wait for the counts of tokens. With graphs (the published recipes for GB200 have them) that falls away. The one
// figure was chosen with all rows of megatron_bridge_moe.csv in sight: none of them is blind.
constexpr Stack mixture(std::string_view name, std::string_view source, double host_seconds) {
  Stack stack = kFused;
  stack.name = name;
  stack.source = source;
  stack.mixture_host_seconds = host_seconds;
  stack.dispatches_fp8 = false;
  return stack;
}

constexpr Stack kStacks[] = {
    {.name = "eager",
     .source = "fitted on 159 rows of mosaicml/llm-foundry@8c8dd48",
     .product_share = 0.873,
     .attention_share = 0.366,
     .hidden_passes = 8.0,
     .feed_forward_passes = 8.3,
     .loss_bytes = 24.4,
     .quantise_bytes = 6,
     .launch_seconds = 112e-6,
     .sharding_interference = 0.80},
    {.name = "megatron_2022",
     .source = "as eager, softmax fitted on arXiv 2205.05198, table 5",
     .product_share = 0.873,
     .scores_in_memory = true,
     .hidden_passes = 8.0,
     .feed_forward_passes = 8.3,
     .loss_bytes = 24.4,
     .quantise_bytes = 6,
     .launch_seconds = 112e-6,
     .sharding_interference = 0.80},
    kFused,
    mixture("mixture_graphs", "as fused; tokens are dispatched in BF16", 0),
    mixture("mixture_launches", "as mixture_graphs; the host's share chosen on megatron_bridge_moe.csv", 6.5e-3),
};

}  // namespace

std::span<const Stack> stacks() { return kStacks; }

const Stack& stack_named(std::string_view name) {
  std::string known;
  for (const Stack& stack : kStacks) {
    if (stack.name == name) return stack;
    known += (known.empty() ? "" : ", ") + std::string(stack.name);
  }
  fail(ExitCode::bad_data, "there is no software stack '{}'; there are: {}", name, known);
}

OperationCost::OperationCost(const Hardware& hardware, const Stack& stack)
    : hardware_(hardware), stack_(stack), memory_rate_(hardware.memory_bytes_per_second * kMemoryShare) {
  if (memory_rate_ <= 0) {
    fail(ExitCode::bad_recipe, "{}.hardware does not say how fast its memory is: give device.memory_bandwidth",
         hardware.name);
  }
}

double OperationCost::rate(RateFormat format) const {
  const double achievable = hardware_.achievable_flops[format];
  const double best = achievable > 0 ? achievable : hardware_.peak_flops[format];
  if (best <= 0) {
    fail(ExitCode::bad_recipe,
         "{}.hardware does not say how fast it multiplies in {}: give flops.{}_achievable or flops.{}_peak there, or "
         "another precision.policy in the recipe",
         hardware_.name, name(format), name(format), name(format));
  }
  const bool recent = hardware_.peak_flops[RateFormat::fp8] > 0;
  return best * (recent ? stack_.product_share : stack_.older_product_share);
}

double OperationCost::product_seconds(const Product& product, RateFormat format) const {
  if (product.flops() <= 0) return 0;
  const double extent = hardware_.half_extent[format];
  const double slower = 1 + extent * (1 / product.m + 1 / product.n + 1 / product.k);
  const double element_bytes = format == RateFormat::fp8 ? 1 : format == RateFormat::bf16 ? 2 : 4;
  const double bytes = product.count * (element_bytes * (product.m + product.n) * product.k +
                                        std::max(2.0, element_bytes) * product.m * product.n);
  return std::max(product.flops() / rate(format) * slower, traffic_seconds(bytes));
}

double OperationCost::attention_seconds(double flops) const {
  const RateFormat format = hardware_.peak_flops[RateFormat::bf16] > 0 ? RateFormat::bf16 : RateFormat::fp32;
  return flops > 0 ? flops / (rate(format) * stack_.attention_share) : 0;
}

double OperationCost::traffic_seconds(double bytes) const { return bytes / memory_rate_; }

}  // namespace shoestring
