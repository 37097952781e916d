// DeepSeek-V2 (arXiv 2405.04434): V3's attention; experts chosen by softmax, their weights not normalised, a group of
// experts as good as its best one; no balancing bias, one token at a time. V2-Lite has no groups.
#include <fmt/core.h>

#include "core/model/families/deepseek_parts.h"

namespace shoestring {
namespace {

void check(const ModelSpec& spec, Findings& found) {
  check_mixture(spec, found);
  found.range("shared_experts", spec.shared_experts, 0, 1024);
  found.unless(spec.router != RouterKindSpec::sqrt_softplus, "router", "deepseek_v2 routes by softmax");
  check_latent_attention(spec, found);
  found.unless(spec.mtp_layers == 0, "mtp_layers", "only deepseek_v3 predicts further tokens");
}

void resolve(ModelConfig& config) {
  resolve_latent_attention(config);
  config.router = RouterKindSpec::softmax;
  config.normalize_weights = false;
  config.group_by_best = true;
}

void read_keys(const ConfigKeys& keys, ModelSpec& spec) {
  read_latent_attention(keys, spec);
  read_deepseek_experts(keys, spec, {});
  keys.refuse_unless(!spec.normalize_weights, "norm_topk_prob", "deepseek_v2 does not normalise");
  spec.router = RouterKindSpec::softmax;
  keys.refuse_unless(keys.string("scoring_func", "softmax") == "softmax", "scoring_func");
  const std::string method = keys.string("topk_method", "greedy");
  keys.refuse_unless(method == "greedy" || method == "group_limited_greedy", "topk_method");
  if (method == "greedy") spec.expert_groups = spec.expert_topk_groups = 1;  // whatever the keys of groups say
}

void write_keys(const ModelConfig& config, Json& keys) {
  write_latent_attention(config, keys);
  write_deepseek_experts(config, keys);
  keys.add("scoring_func", "softmax");
  keys.add("topk_method", config.expert_groups > 1 ? "group_limited_greedy" : "greedy");
}

}  // namespace

const Family kDeepSeekV2{.architecture = Architecture::deepseek_v2,
                         .class_name = "DeepseekV2ForCausalLM",
                         .experts = true,
                         .latent_attention = true,
                         .check = check,
                         .matrices = deepseek_matrices,
                         .resolve = resolve,
                         .read_keys = read_keys,
                         .write_keys = write_keys};

}  // namespace shoestring
