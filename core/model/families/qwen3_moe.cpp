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

}  // namespace

const Family kQwen3Moe{
    .architecture = Architecture::qwen3_moe, .experts = true, .check = check, .matrices = matrices, .resolve = resolve};

}  // namespace shoestring
