// Qwen3: as llama, with an RMSNorm of each query and key head before RoPE.
#include "core/model/families/parts.h"

namespace shoestring {
namespace {

void check(const ModelSpec& spec, Findings& found) {
  check_dense(spec, found);
  check_grouped_attention(spec, found);
}

void resolve(ModelConfig& config) {
  resolve_grouped_attention(config);
  config.qk_norm = true;
}

}  // namespace

const Family kQwen3{
    .architecture = Architecture::qwen3, .check = check, .matrices = grouped_matrices, .resolve = resolve};

}  // namespace shoestring
