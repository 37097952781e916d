// DeepSeek-V3 (arXiv 2412.19437): multi-head latent attention with interleaved RoPE, experts in groups balanced by a
// bias, shared experts, multi-token prediction.
#include <fmt/core.h>

#include <array>
#include <utility>

#include "core/model/families/deepseek_parts.h"

namespace shoestring {
namespace {

constexpr std::array<std::pair<RouterKindSpec, const char*>, 3> kScores{
    {{RouterKindSpec::sigmoid, "sigmoid"},
     {RouterKindSpec::softmax, "softmax"},
     {RouterKindSpec::sqrt_softplus, "sqrtsoftplus"}}};

void check(const ModelSpec& spec, Findings& found) {
  check_mixture(spec, found);
  found.unless(spec.expert_groups <= 1 || spec.experts / spec.expert_groups >= 2, "expert_groups",
               "a group's score is the sum of its two best experts: give each group at least 2");
  found.range("shared_experts", spec.shared_experts, 0, 1024);
  found.unless(spec.router != RouterKindSpec::softmax || spec.expert_groups <= 1, "router",
               "a softmax router does not choose groups: use sigmoid, or expert_groups = 1");
  check_latent_attention(spec, found);
  found.range("mtp_layers", spec.mtp_layers, 0, 1);
  found.not_negative("mtp_weight", spec.mtp_weight);
}

void matrices(const ModelSpec& spec, const MatrixVisitor& matrix) {
  deepseek_matrices(spec, matrix);
  matrix("hidden", spec.mtp_layers * 2 * spec.hidden, spec.hidden);
}

void resolve(ModelConfig& config) {
  resolve_latent_attention(config);
  config.router_bias = true;
}

void read_keys(const ConfigKeys& keys, ModelSpec& spec) {
  read_latent_attention(keys, spec);
  read_deepseek_experts(keys, spec, {.normalised = true, .routed_scale = 2.5, .groups = 8, .topk_groups = 4});
  spec.mtp_layers = keys.integer("num_nextn_predict_layers", 0);
  keys.refuse_unless(keys.string("topk_method", "noaux_tc") == "noaux_tc", "topk_method");
  const std::string wanted = keys.string("scoring_func", "sigmoid");
  bool known = false;
  for (const auto& [kind, word] : kScores) {
    if (wanted != word) continue;
    spec.router = kind;
    known = true;
  }
  keys.refuse_unless(known, "scoring_func");
}

void write_keys(const ModelConfig& config, Json& keys) {
  write_latent_attention(config, keys);
  write_deepseek_experts(config, keys);
  for (const auto& [kind, word] : kScores) {
    if (kind == config.router) keys.add("scoring_func", word);
  }
  keys.add("topk_method", "noaux_tc");
  keys.add("rope_interleave", true);
  keys.add("num_nextn_predict_layers", config.mtp_layers);
}

}  // namespace

const Family kDeepSeekV3{.architecture = Architecture::deepseek_v3,
                         .class_name = "DeepseekV3ForCausalLM",
                         .experts = true,
                         .latent_attention = true,
                         .further_tokens = true,
                         .check = check,
                         .matrices = matrices,
                         .resolve = resolve,
                         .read_keys = read_keys,
                         .write_keys = write_keys};

}  // namespace shoestring
