// Llama 2 and 3, and what follows them: grouped-query attention, SwiGLU, no bias anywhere.
#include "core/model/families/parts.h"

namespace shoestring {
namespace {

void check(const ModelSpec& spec, Findings& found) {
  check_dense(spec, found);
  check_grouped_attention(spec, found);
}

void resolve(ModelConfig& config) { resolve_grouped_attention(config); }

}  // namespace

const Family kLlama{
    .architecture = Architecture::llama, .check = check, .matrices = grouped_matrices, .resolve = resolve};

}  // namespace shoestring
