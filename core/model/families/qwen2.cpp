// Qwen2 and Qwen2.5: as llama, with biases on queries, keys and values.
#include "core/model/families/parts.h"

namespace shoestring {
namespace {

void check(const ModelSpec& spec, Findings& found) {
  check_dense(spec, found);
  check_grouped_attention(spec, found);
}

void resolve(ModelConfig& config) {
  resolve_grouped_attention(config);
  config.qkv_bias = true;
}

}  // namespace

const Family kQwen2{
    .architecture = Architecture::qwen2, .check = check, .matrices = grouped_matrices, .resolve = resolve};

}  // namespace shoestring
