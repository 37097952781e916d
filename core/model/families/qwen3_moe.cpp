// Qwen3-MoE: Qwen3's attention, and experts chosen by softmax, with neither groups nor shared experts nor a bias.
#include "core/model/families/parts.h"

namespace shoestring {
namespace {

void check(const ModelSpec& spec, Findings& found) {
  check_mixture(spec, found);
  found.unless(spec.shared_experts == 0, "shared_experts", "qwen3_moe has no shared experts");
  found.unless(spec.expert_groups <= 1, "expert_groups", "qwen3_moe does not group its experts");
  found.unless(spec.routed_scale == 1, "routed_scale", "qwen3_moe does not scale its routed experts");
  found.unless(spec.router != RouterKindSpec::sqrt_softplus, "router", "qwen3_moe routes by softmax");
  check_grouped_attention(spec, found);
}

void matrices(const ModelSpec& spec, const MatrixVisitor& matrix) {
  mixture_matrices(spec, matrix);
  grouped_matrices(spec, matrix);
}

void resolve(ModelConfig& config) {
  resolve_grouped_attention(config);
  config.qk_norm = true;
  config.router = RouterKindSpec::softmax;
}

/// Absent, a head has 128 elements, whatever the hidden size.
constexpr std::int64_t kHeadDim = 128;

void read_keys(const ConfigKeys& keys, ModelSpec& spec) {
  read_grouped_attention(keys, spec);
  spec.head_dim = keys.integer("head_dim", kHeadDim);
  read_experts(keys, spec, false);
  spec.router = RouterKindSpec::softmax;
  spec.experts = keys.integer_under("num_experts", "num_local_experts");  // transformers 5 writes the latter
  spec.balance_loss = keys.number("router_aux_loss_coef", spec.balance_loss);
  keys.refuse_unless(keys.integer("decoder_sparse_step", 1) == 1, "decoder_sparse_step");
  const Json* dense = keys.find("mlp_only_layers");
  if (dense == nullptr) return;
  keys.refuse_unless(dense->is_array() && dense->size() <= 4096, "mlp_only_layers");
  for (const Json& layer : dense->items()) {
    keys.refuse_unless(layer.is_count() && layer.whole() == spec.dense_layers, "mlp_only_layers",
                       "dense layers come first here");
    ++spec.dense_layers;
  }
}

void write_keys(const ModelConfig& config, Json& keys) {
  write_grouped_attention(config, keys);
  write_experts(config, keys);
  keys.add("num_experts", config.experts);  // other readers know no num_local_experts
  keys.add("decoder_sparse_step", 1);
  Json& dense = keys.add("mlp_only_layers", Json::array());
  for (std::int64_t layer = 0; layer < config.dense_layers; ++layer) dense.push(layer);
  keys.add("router_aux_loss_coef", config.balance_loss);
  keys.add("output_router_logits", false);
}

}  // namespace

const Family kQwen3Moe{.architecture = Architecture::qwen3_moe,
                       .class_name = "Qwen3MoeForCausalLM",
                       .experts = true,
                       .check = check,
                       .matrices = matrices,
                       .resolve = resolve,
                       .read_keys = read_keys,
                       .write_keys = write_keys};

}  // namespace shoestring
