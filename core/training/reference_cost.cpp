#include "core/training/reference_cost.h"

#include <algorithm>
#include <map>

#include "core/model/accounting.h"
#include "core/training/run_resources.h"
#include "kernels/base/check.h"
#include "kernels/variant_list.h"

namespace shoestring {
namespace {

constexpr double kMostTimes = 10;

/// What a hot op works on, per trained token.
struct Work {
  double product_flops = 0;    // linear layers and the head
  double attention_flops = 0;  // the core, forward and backward (as accounting.h counts them)
  double logits = 0;
  double normed = 0;     // elements that an RMSNorm passes
  double rotated = 0;    // elements of queries and keys
  double gated = 0;      // inner elements of the feed-forward layers
  double updated = 0;    // parameters, over the tokens of a step
  double quantized = 0;  // elements of the residual stream in all layers; 0 where nothing is in FP8
};

Work work_of(const Recipe& recipe, const ModelConfig& config, const PhaseSpec& phase) {
  const FlopCounts flops = count_flops(config, recipe.precision, phase.sequence, lora_of(recipe, phase));
  const auto layers = static_cast<double>(config.layers + config.mtp_layers);
  const auto hidden = static_cast<double>(config.hidden);
  const auto heads = static_cast<double>(config.heads);
  double inner = 0;
  for (std::int64_t layer = 0; layer < config.layers + config.mtp_layers; ++layer) {
    inner += static_cast<double>(config.mixture(layer) ? config.experts_per_token * config.expert_feed_forward +
                                                             config.shared_feed_forward()
                                                       : config.feed_forward);
  }
  Work work;
  work.attention_flops =
      3 * static_cast<double>(phase.sequence) * heads * static_cast<double>(config.qk_dim + config.v_dim) * layers;
  work.product_flops = std::max(0.0, flops.training() - work.attention_flops);
  work.logits = static_cast<double>(config.vocabulary * (1 + config.mtp_layers));
  work.normed = hidden * (2 * layers + 1);
  work.rotated = layers * (heads + static_cast<double>(config.kv_heads)) * static_cast<double>(config.rope_dim) * 2;
  work.gated = inner;
  work.updated = static_cast<double>(count_parameters(config).with_further()) /
                 static_cast<double>(std::max<std::int64_t>(1, phase.sequence * phase.global_batch));
  const PrecisionPolicy policy = recipe.precision.policy;
  if (policy == PrecisionPolicy::fp8_block || policy == PrecisionPolicy::fp8_tensor || policy == PrecisionPolicy::mxfp8)
    work.quantized = layers * hidden;
  return work;
}

struct HotOp {
  std::string_view op;
  double Work::*work;
  double plain_ns;  // of one core, per unit of work
  double vector_ns;
};

// One core of Zen 3, plain rows (SHOESTRING_MAX_ISA=portable) and AVX2: shares of profiles (perf) of the same steps of
// tiny_dense in FP32 with a vocabulary of 4096, quantise from tiny_moe in FP8. The machine takes part in the figures
// of both columns alike. What reading and writing of packed products takes is in gemm's; grouped products cost the
// same.
constexpr HotOp kHotOps[] = {
    {"gemm", &Work::product_flops, 0.065, 0.0157},
    {"attention_forward", &Work::attention_flops, 0.212, 0.0059},
    {"attention_backward", &Work::attention_flops, 0.282, 0.0148},
    {"cross_entropy", &Work::logits, 39, 1.7},
    {"rms_norm_forward", &Work::normed, 5.1, 0.8},
    {"rms_norm_input_gradient", &Work::normed, 9.9, 0.4},
    {"rms_norm_weight_gradient", &Work::normed, 8.7, 0.6},
    {"rope", &Work::rotated, 7.2, 1.0},
    {"swiglu_forward", &Work::gated, 24, 1.7},
    {"swiglu_gradient", &Work::gated, 33, 2.0},
    {"adamw_step", &Work::updated, 11.2, 1.1},
    {"quantize", &Work::quantized, 310, 20},
};

/// Hot too, and counted in another op's figure.
struct Companion {
  std::string_view op;
  bool (*used)(const Recipe&);
};
constexpr Companion kCompanions[] = {
    {"grouped_gemm", [](const Recipe& recipe) { return recipe.model.experts > 0; }},
    {"grouped_weight_gemm", [](const Recipe& recipe) { return recipe.model.experts > 0; }},
};

/// "gemm=portable" where this machine has but a plain row for the op, empty otherwise.
std::string plain_row(std::string_view op, std::string_view (*lacks)(std::string_view variant)) {
  const auto table =
      std::find_if(op_variants().begin(), op_variants().end(), [&](const OpVariants& known) { return known.op == op; });
  check(table != op_variants().end(), "no table of variants is named {}", op);
  const auto best = std::find_if(table->variants.begin(), table->variants.end(),
                                 [&](std::string_view variant) { return lacks(variant).empty(); });
  check(best != table->variants.end(), "{}: no row runs on this machine", op);
  return *best == "reference" || *best == "portable" ? fmt::format("{}={}", op, *best) : std::string();
}

std::int64_t vocabulary_of(const Recipe& recipe) {
  if (recipe.model.vocabulary > 0) return recipe.model.vocabulary;
  return load_tokenizer(tokenizer_file(recipe))->vocabulary_size();
}

}  // namespace

std::string ReferenceCost::to_string() const {
  if (ops.empty()) return {};
  std::string list;
  for (const std::string& op : ops) list += (list.empty() ? "" : ", ") + op;
  return fmt::format("no vector rows here for {}: a step takes about {:.2g} times as long", list, times);
}

ReferenceCost reference_cost(const Recipe& recipe, std::string_view (*lacks)(std::string_view variant)) {
  std::map<std::string_view, std::string> plain;  // empty where vectors do it
  for (const HotOp& hot : kHotOps) plain[hot.op] = plain_row(hot.op, lacks);
  for (const Companion& companion : kCompanions) {
    if (companion.used(recipe)) plain[companion.op] = plain_row(companion.op, lacks);
  }
  if (std::all_of(plain.begin(), plain.end(), [](const auto& row) { return row.second.empty(); })) return {};
  std::int64_t longest = 0;
  for (const PhaseSpec& phase : recipe.phases) longest = std::max(longest, phase.sequence);
  const ModelConfig config = resolve_model(recipe.model, vocabulary_of(recipe), longest);
  ReferenceCost cost;
  for (const PhaseSpec& phase : recipe.phases) {
    const Work work = work_of(recipe, config, phase);
    double with_vectors = 0;
    double here = 0;
    for (const HotOp& hot : kHotOps) {
      const double amount = work.*hot.work;
      if (amount <= 0) plain[hot.op].clear();  // not of this recipe
      with_vectors += amount * hot.vector_ns;
      here += amount * (plain[hot.op].empty() ? hot.vector_ns : hot.plain_ns);
    }
    cost.times = std::max(cost.times, here / with_vectors);
  }
  for (const auto& [op, row] : plain) {
    if (!row.empty()) cost.ops.push_back(row);
  }
  return cost;
}

void check_reference_cost(const ReferenceCost& cost, AllowReference allowed) {
  switch (allowed) {
    case AllowReference::yes: return;
    case AllowReference::no:
      for (const std::string& op : cost.ops) {
        if (!op.ends_with("=reference")) continue;
        fail(ExitCode::bad_recipe, "{}; kernels.allow_reference = no forbids that: set it to yes to let it",
             cost.to_string());
      }
      return;
    case AllowReference::automatic: break;
  }
  if (cost.times <= kMostTimes) return;
  fail(ExitCode::bad_recipe, "{}; set kernels.allow_reference = yes to train all the same", cost.to_string());
}

}  // namespace shoestring
